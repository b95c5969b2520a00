// What is shown while there is nothing, not yet, or not any more. The page is that of a `tidemark serve` whose broker
// and processors are another process, so these can be stopped while the page has a server.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { accessible, close, launch, open, phone } from './browser.mjs'
import { Tidemark } from './tidemark.mjs'

let browser, tidemark, serve
before(async () => {
	tidemark = await Tidemark.start()
	serve = await tidemark.serve()
	browser = await launch()
})
after(async () => {
	await browser?.close()
	await serve?.stop()
	await tidemark?.stop()
})

const row = (page, text) => page.locator('[data-row]', { hasText: text })
const at = (page, hash) => page.evaluate(h => (location.hash = h), hash)
const banner = (page, text) => page.locator('.banner', { hasText: text })

/** Holds back the answers for a path until the returned function is called. */
async function hold(page, path) {
	let release
	const released = new Promise(resolve => (release = resolve))
	await page.route(path, async route => {
		await released
		await route.continue()
	})
	return release
}

test('without a workspace the first view says how to get one, and shows it without reload', async () => {
	const page = await open(browser, serve.url)
	await page.getByRole('heading', { name: 'No workspace yet' }).waitFor()
	await page.getByText('tidemark send', { exact: true }).waitFor()
	await accessible(page, 'no workspace')
	await tidemark.send('added', { workspace_id: '123', object_id: 'a', path: '/a.txt' })
	await row(page, '123').waitFor()
	assert.equal(await page.getByText('No workspace yet').count(), 0)
	await close(page)
})

test('each view says that it is loading, until its answer comes', async () => {
	const views = [
		['', '**/v1/workspaces?*', row, '123'],
		['#/workspaces/123', '**/v1/workspaces/123', row, 'a.txt'],
		['#/workspaces/123/files/a', '**/v1/workspaces/123/files/a', (page, text) => page.getByText(text), 'File id'],
		['#/health', '**/v1/status', (page, text) => page.getByText(text), 'Partitions'],
	]
	const page = await open(browser, `${serve.url}#/dead-letters`)
	await page.getByText('This server does not show dead letters').waitFor()
	for (const [hash, path, find, text] of views) {
		const release = await hold(page, path)
		await at(page, hash)
		await page.reload()
		await page.getByText('Loading…').first().waitFor()
		assert.equal(await find(page, text).count(), 0)
		await accessible(page, `loading ${hash}`)
		release()
		await find(page, text).first().waitFor()
		await page.getByText('Loading…').first().waitFor({ state: 'detached' })
		await page.unroute(path)
	}
	await close(page)
})

test('live changes without a change say so', async () => {
	const page = await open(browser, `${serve.url}#/workspaces/123/live`)
	await page.locator('.mark.live').waitFor()
	await page.getByText('Nothing has changed since you opened this view').waitFor()
	await page.locator('.figure', { hasText: 'Received' }).getByText('0', { exact: true }).waitFor()
	await accessible(page, 'no change yet')
	await tidemark.send('added', { workspace_id: '123', object_id: 'b', path: '/b.txt' })
	await row(page, '/b.txt').waitFor()
	assert.equal(await page.getByText('Nothing has changed').count(), 0)
	for (const path of ['/reports/2026/q3.pdf', '/brand/photos/team.jpg', '/contracts/acme.docx']) {
		for (const [event, fields] of [['added', { path }], ['updated', { size: 4096 }]]) {
			await tidemark.send(event, { workspace_id: '123', object_id: path, ...fields })
			await row(page, path).locator('..', { hasText: event }).first().waitFor()
		}
	}
	if (process.env.SCREENSHOTS) {
		await page.emulateMedia({ colorScheme: 'dark' })
		await page.setViewportSize(phone)
		await page.screenshot({ path: `${process.env.SCREENSHOTS}/page-live-phone.png` })
	}
	await close(page)
})

test('health has no reasons of dead letters where the server does not show them', async () => {
	const page = await open(browser, serve.url)
	await page.route('**/v1/status', async route => {
		const response = await route.fetch()
		await route.fulfill({ json: { ...(await response.json()), dead_lettered: 2 } })
	})
	const refused = page.waitForResponse(response => response.url().endsWith('/v1/dlq') && response.status() === 501)
	await at(page, '#/health')
	await refused
	await page.getByText('tidemark dlq list', { exact: true }).waitFor()
	assert.equal(await page.getByRole('region', { name: 'Reasons' }).count(), 0)
	await page.locator('.figure a', { hasText: '2' }).click()
	await page.getByText('This server does not show dead letters').waitFor()
	await close(page)
})

/** Waits until the status of serve is as wanted. */
async function status(wanted) {
	for (;;) {
		const answer = await (await fetch(`${serve.url}v1/status`)).json()
		if (wanted(answer)) return
		await new Promise(resolve => setTimeout(resolve, 100))
	}
}

test('a broker that is away is said, and once it is back the next event appears without reload', async t => {
	const page = await open(browser, `${serve.url}#/workspaces/123`)
	await row(page, 'b.txt').waitFor()
	await page.locator('.mark.live').waitFor()
	await status(s => s.partitions.every(p => p.lag_records === 0)) // else the banner is that of processing
	await page.evaluate(() => (window.notReloaded = true))
	const began = Date.now()
	await tidemark.kill()
	await banner(page, /Stale\. The brokers have not answered for \d+ s/).waitFor({ timeout: 40_000 })
	t.diagnostic(`the banner appeared after ${Date.now() - began} ms`)
	assert.equal((await fetch(`${serve.url}v1/workspaces/123`)).status, 200, 'the server itself answers')
	assert.equal(await row(page, '.txt').count(), 2, 'what was loaded is shown still')
	await accessible(page, 'broker away')
	await banner(page, '').getByRole('link', { name: 'Health' }).click()
	await page.getByText(/The brokers have not answered for \d+ s: what has come since is not known/).waitFor()
	await page.getByText('tidemark doctor', { exact: true }).waitFor()
	await page.locator('.figure', { hasText: 'Lag, time' }).locator('.bad').waitFor()
	await accessible(page, 'health, broker away')
	await page.goBack()
	await row(page, 'b.txt').waitFor() // the answers of a server without its broker

	const returned = Date.now()
	await tidemark.run()
	await page.locator('.banner').waitFor({ state: 'detached', timeout: 40_000 })
	t.diagnostic(`the banner was gone ${Date.now() - returned} ms after the broker was started`)
	await tidemark.send('added', { workspace_id: '123', object_id: 'c', path: '/c.txt' })
	await row(page, 'c.txt').waitFor({ timeout: 40_000 })
	assert.equal(await page.evaluate(() => window.notReloaded), true)
	await close(page)
})
