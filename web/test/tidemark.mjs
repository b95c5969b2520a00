// Runs `tidemark dev` and `tidemark serve` for the tests of the page, and sends webhooks.
import { spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const binary = process.env.TIDEMARK ?? '../bin/tidemark'
const secret = 'a-secret-of-the-page-tests'

export class Tidemark {
	#process
	#addresses
	#data
	#arguments
	#sent = 0

	/** Starts `tidemark dev` with further arguments, on free ports. */
	static async start(...more) {
		const t = new Tidemark()
		await t.#begin('dev', ['api', 'ingress', 'admin', 'kafka'], ['--archive-url', 'none', ...more])
		return t
	}

	/** Starts `tidemark serve` in a process of its own, on the broker of this one. */
	async serve(...more) {
		const s = new Tidemark()
		const brokers = ['--brokers', this.#addresses.kafka, '--replication', '1', '--min-insync', '1']
		await s.#begin('serve', ['api', 'admin'], [...brokers, ...more])
		return s
	}

	async #begin(command, listeners, more) {
		this.#data = await mkdtemp(join(tmpdir(), 'tidemark-page-'))
		const ports = await Promise.all(listeners.map(freePort))
		this.#addresses = Object.fromEntries(listeners.map((name, i) => [name, `127.0.0.1:${ports[i]}`]))
		const addresses = Object.entries(this.#addresses).flatMap(([name, address]) => [`--${name}-addr`, address])
		this.#arguments = [command, '--data', this.#data, '--partitions', '4', '--log-level', 'warn', ...addresses, ...more]
		await this.run()
	}

	get url() {
		return `http://${this.#addresses.api}/`
	}

	/** Runs it on the same data and ports, and returns once it is ready. */
	async run() {
		const child = spawn(binary, this.#arguments, {
			env: { ...process.env, TIDEMARK_WEBHOOK_SECRETS: secret },
			stdio: ['ignore', 'ignore', 'pipe'],
		})
		this.#process = child
		let errors = ''
		let failure
		child.stderr.on('data', data => (errors += data))
		child.on('error', error => (failure = error))
		child.on('exit', code => (failure ??= new Error(`tidemark ${this.#arguments[0]} ended with ${code}:\n${errors}`)))
		while (!(await fetch(`http://${this.#addresses.admin}/readyz`).then(r => r.ok, () => false))) {
			if (failure) throw failure
			await new Promise(resolve => setTimeout(resolve, 50))
		}
	}

	async kill() {
		const ended = new Promise(resolve => this.#process.once('exit', resolve))
		this.#process.kill('SIGKILL')
		await ended
	}

	async stop() {
		if (this.#process.exitCode === null && this.#process.signalCode === null) await this.kill()
		await rm(this.#data, { recursive: true, force: true })
	}

	/** Sends a signed webhook, and returns its position. A bigint is sent as a number. */
	async send(event, fields) {
		const body = JSON.stringify({
			event: `workspace_storage_file_${event}`,
			event_id: `page-${Date.now()}-${this.#sent++}`,
			created: new Date().toISOString(),
			...fields,
		}, (_, value) => (typeof value === 'bigint' ? `<${value}>` : value)).replaceAll(/"<(\d+)>"/g, '$1')
		const signature = createHmac('sha256', secret).update(body).digest('hex')
		const response = await fetch(`http://${this.#addresses.ingress}/webhook/fastio`, {
			method: 'POST',
			body,
			headers: { 'Fastio-Signature': `sha256=${signature}` },
		})
		if (response.status !== 200) throw new Error(`webhook: ${response.status} ${await response.text()}`)
		return (await response.json()).position
	}
}

/** A port below those that the kernel gives to clients' connections: one of these could take it during a restart. */
function freePort() {
	const port = 10_000 + Math.floor(9000 * Math.random())
	return new Promise(resolve => {
		const server = createServer()
		server.on('error', () => resolve(freePort()))
		server.listen(port, '127.0.0.1', () => server.close(() => resolve(port)))
	})
}
