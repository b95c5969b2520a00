// Runs `tidemark dev` for the tests of the page, and sends it webhooks.
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

	/** Starts it with further arguments, on free ports. */
	static async start(...more) {
		const t = new Tidemark()
		t.#data = await mkdtemp(join(tmpdir(), 'tidemark-page-'))
		const [api, ingress, admin, kafka] = await Promise.all([freePort(), freePort(), freePort(), freePort()])
		t.#addresses = { api, ingress }
		t.#arguments = ['dev', '--data', t.#data, '--partitions', '4', '--archive-url', 'none', '--log-level', 'warn']
		for (const [flag, port] of Object.entries({ api, ingress, admin, kafka })) {
			t.#arguments.push(`--${flag}-addr`, `127.0.0.1:${port}`)
		}
		t.#arguments.push(...more)
		await t.run()
		return t
	}

	get url() {
		return `http://127.0.0.1:${this.#addresses.api}/`
	}

	/** Runs it on the same data and ports, and returns once it is ready. */
	async run() {
		const child = spawn(binary, this.#arguments, {
			env: { ...process.env, TIDEMARK_WEBHOOK_SECRETS: secret },
			stdio: ['ignore', 'pipe', 'pipe'],
		})
		this.#process = child
		let errors = ''
		child.stderr.on('data', data => (errors += data))
		await new Promise((ready, failed) => {
			let out = ''
			child.stdout.on('data', data => {
				out += data
				if (/^ready$/m.test(out)) ready()
			})
			child.on('error', failed)
			child.on('exit', code => failed(new Error(`tidemark dev ended with ${code}:\n${errors}`)))
		})
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
		const response = await fetch(`http://127.0.0.1:${this.#addresses.ingress}/webhook/fastio`, {
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
