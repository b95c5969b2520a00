import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { accessible, close, launch, open } from './browser.mjs'
import { Tidemark } from './tidemark.mjs'

// Before the first data: style, script, icon, and no more requests to the API than this. On loopback and an idle machine
// they take less than 300 ms; the test only prints the time, which on a busy one says little.
const requestsBeforeData = 6

let browser, tidemark
before(async () => {
	tidemark = await Tidemark.start()
	browser = await launch()
	for (const [i, [object_id, path, size, mime]] of seed.entries()) {
		const name = path.split('/').at(-1)
		const created = hoursAgo(166 - Math.floor(i / 3))
		await tidemark.send('added', { workspace_id: '123', object_id, path, name, size, mime, created })
	}
	const edited = seed.filter(([id]) => id !== '2nb')
	let i = 0
	for (const [day, n] of updates.entries()) {
		for (let j = 0; j < n; j++, i++) {
			const [object_id] = edited[i % edited.length]
			const created = hoursAgo(158 - 24 * day - (day % 3) - Math.floor((j * j) / (2 * n)))
			await tidemark.send('updated', { workspace_id: '123', object_id, hash: `h${i}`, user_id: users[i % 3], created })
		}
	}
})
after(async () => {
	await browser?.close()
	await tidemark?.stop()
})

const seed = [
	['2q1', '/reports/2026/q1.pdf', 182_330, 'application/pdf'],
	['2q2', '/reports/2026/q2.pdf', 201_774, 'application/pdf'],
	['2q3', '/reports/2026/q3.pdf', 198_012, 'application/pdf'],
	['2lg', '/brand/logo.svg', 5_120, 'image/svg+xml'],
	['2ph', '/brand/photos/team.jpg', 4_403_221, 'image/jpeg'],
	['2nb', '/notes.md', 2_048, 'text/markdown'],
	['2ct', '/contracts/acme.docx', 48_112, 'application/vnd.openxmlformats-officedocument.wordprocessingml.document'],
	['2vd', '/brand/launch.mp4', 93_442_118, 'video/mp4'],
]

const updates = [9, 5, 11, 7, 3, 0, 7] // of each day
const users = ['ann', 'bob', 'cy']
const hoursAgo = hours => new Date(Date.now() - 3_600_000 * hours).toISOString()

const row = (page, text) => page.locator('[data-row]', { hasText: text })
const at = (page, hash) => page.evaluate(h => (location.hash = h), hash)
const shot = async (page, name, how) => {
	if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, ...how })
}

test('workspaces are listed, and the first data comes soon', async t => {
	const page = await open(browser, tidemark.url)
	const times = []
	for (let i = 0; i < 5; i++) {
		if (i > 0) await page.reload()
		await row(page, '123').waitFor()
		await page.waitForFunction(() => performance.getEntriesByName('data').length > 0)
		const [at, requests] = await page.evaluate(() => {
			const at = performance.getEntriesByName('data')[0].startTime
			return [at, performance.getEntriesByType('resource').filter(r => r.startTime < at).map(r => r.name)]
		})
		times.push(at)
		assert.ok(requests.length <= requestsBeforeData, `requested before the first data: ${requests.join(', ')}`)
	}
	await accessible(page, 'workspaces')
	await close(page)
	t.diagnostic(`first data after ${times.map(Math.round).join(', ')} ms; the first without a cache`)
})

test('a webhook appears in the workspace without reload', async t => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123`)
	await row(page, 'q1.pdf').waitFor()
	await page.locator('.mark.live').waitFor()
	const began = Date.now()
	await tidemark.send('added', { workspace_id: '123', object_id: '2nw', path: '/reports/2026/q4.pdf', size: 9 })
	await row(page, 'q4.pdf').waitFor()
	t.diagnostic(`visible ${Date.now() - began} ms after it was sent`)
	const files = n => page.locator('.figure', { hasText: 'Files' }).getByText(n, { exact: true })
	await files('9').waitFor() // the counts follow the files
	await tidemark.send('deleted', { workspace_id: '123', object_id: '2nw' })
	await row(page, 'q4.pdf').waitFor({ state: 'detached' })
	await files('8').waitFor()
	await accessible(page, 'workspace')
	await page.locator('.plot').waitFor()
	await shot(page, 'page-workspace')
	await close(page)
})

test('usage is shown by type, folder and actor, and activity as a plot and as a table', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123`)
	const bar = (name, ...numbers) =>
		page.locator('.bars tr', { hasText: name }).filter({ hasText: new RegExp(numbers.join('\\s*')) }).waitFor()
	await bar('application/pdf', '3', '582 kB')
	await page.getByRole('button', { name: 'actor' }).click()
	await bar('cy', '3', '93.6 MB')
	await bar('not known', '1', '2.0 kB')
	await page.getByRole('button', { name: 'folder' }).click()
	await bar('/brand', '2', '93.4 MB')
	const plot = page.getByRole('img', { name: /^52 file changes in 7 days: 9 added, 42 updated, 1 deleted$/ })
	const { width } = await plot.boundingBox()
	await plot.hover({ position: { x: width - 8, y: 60 } })
	await page.locator('.legend', { hasText: /\d\d:00 to \d\d:00: \d+ added/ }).waitFor()
	await page.getByText('Activity as a table').click()
	const cells = await page.locator('.usage details tbody tr').first().locator('td').allInnerTexts()
	assert.equal(cells.length, 7)
	await accessible(page, 'usage')
	await tidemark.send('updated', { workspace_id: '123', object_id: '2lg', size: 6_120 })
	await page.getByRole('img', { name: /43 updated/ }).waitFor({ timeout: 25_000 }) // it is loaded at most every 10 s
	await page.getByRole('link', { name: '/brand/photos', exact: true }).click()
	await row(page, 'q1.pdf').waitFor({ state: 'detached' })
	await row(page, 'team.jpg').waitFor()
	assert.equal(await page.locator('[data-row]').count(), 1)
	const from = new Date(Math.floor(Date.now() / 3_600_000 - 168) * 3_600_000).toISOString() // 169 hours with this one
	const first = { start: from, events: 1, added: 1, updated: 0, deleted: 0, bytes_added: '1', bytes_removed: '0' }
	const totals = { files: 0, bytes: '0', by: {} }
	await page.route('**/usage?*', route => route.fulfill({ json: { totals, activity: { from, windows: [first] } } }))
	await page.reload()
	await page.getByRole('img', { name: /^1 file change in/ }).waitFor()
	await page.locator('.plot .added[d^="M40 "]').waitFor({ state: 'attached' }) // at the left edge
	const json = { code: 'history_not_configured', detail: 'this server keeps no history: see --history' }
	await page.route('**/usage?*', route => route.fulfill({ status: 501, json }))
	await page.reload()
	await page.getByText('tidemark serve --history 168h', { exact: true }).waitFor()
	await bar('application/pdf', '3')
	await accessible(page, 'usage without history')
	await close(page)
})

test('files are found by folder, by words and by status', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123`)
	await page.locator('a.folder', { hasText: 'brand/' }).first().click()
	await row(page, 'q1.pdf').waitFor({ state: 'detached' })
	await row(page, 'team.jpg').waitFor()
	assert.deepEqual(await page.locator('[data-row]').allInnerTexts(), ['launch.mp4', 'logo.svg', 'team.jpg'])
	await page.getByLabel('Path begins with').fill('/nowhere/')
	await page.keyboard.press('Enter')
	await page.getByText('No active file here').waitFor()
	await accessible(page, 'no files')
	await page.getByLabel('Path begins with').fill('/')
	await page.getByLabel('Search names and paths').fill('acme')
	await page.getByRole('button', { name: 'Show' }).click()
	await row(page, 'acme.docx').waitFor()
	assert.equal(await page.locator('[data-row]').count(), 1)
	await at(page, '#/workspaces/nobody')
	await page.getByText('There is no such workspace').waitFor()
	await accessible(page, 'error')
	await close(page)
})

test('a file shows its state and history, and changes while it is open', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123/files/2nb`)
	await page.getByText('2.0 kB (2,048 bytes)').waitFor()
	await page.getByText('tidemark why 123 2nb').waitFor()
	await page.locator('.mark.live').waitFor()
	await tidemark.send('updated', { workspace_id: '123', object_id: '2nb', size: 4096 })
	await page.getByText('4.1 kB (4,096 bytes)').waitFor()
	await page.locator('[data-version="2"]', { hasText: 'size: 2048 → 4096' }).waitFor()
	await page.locator('[data-version="1"]', { hasText: 'path: none → /notes.md' }).waitFor()
	const position = await tidemark.send('updated', { workspace_id: '123', object_id: '2nb', size: 9007199254740993n })
	await page.getByText('9.0 PB (9,007,199,254,740,993 bytes)').waitFor()
	await page.locator('[data-version="3"]', { hasText: 'size: 4096 → 9007199254740993' }).waitFor()
	await at(page, `#/workspaces/123/events/${position}`)
	await page.locator('.diff tr', { hasText: 'size' }).getByText('9007199254740993', { exact: true }).waitFor()
	await page.getByText('Payload').click()
	await page.locator('.record', { hasText: '"size": 9007199254740993' }).first().waitFor()
	await tidemark.send('updated', { workspace_id: '123', object_id: '2nb', size: 4096 })
	await page.goBack()
	await page.getByText('4.1 kB (4,096 bytes)').waitFor()
	await page.getByText('All changes from position').waitFor()
	await accessible(page, 'file')
	await at(page, '#/workspaces/123/files/2q3')
	await page.locator('[data-version]').nth(4).waitFor()
	await shot(page, 'page-file', { fullPage: true })
	await close(page)
})

test('live changes count what they skip, and pause', async t => {
	const page = await open(browser, `${tidemark.url}#/workspaces/live/live`)
	const figure = async name => Number(await page.locator('.figure', { hasText: name }).locator('dd').innerText())
	// A stream begins with the present: before the page has asked, the first change would be of the past.
	await page.waitForResponse(r => r.url().includes('/workspaces/live/changes?') && r.status() === 404)
	await page.locator('.mark.retrying').waitFor()
	await page.waitForResponse(r => r.url().includes('limit=1') && r.status() === 404)
	await tidemark.send('added', { workspace_id: 'live', object_id: 'first', path: '/first' })
	await row(page, '/first').waitFor() // also where the workspace appears later than the view
	await page.getByRole('button', { name: 'Pause' }).click()
	const many = 150
	for (let i = 0; i < many; i++) {
		await tidemark.send('added', { workspace_id: 'live', object_id: `f${i}`, path: `/f${i}` })
	}
	const position = await tidemark.send('updated', { workspace_id: 'live', object_id: 'first', path: '/last' })
	await fetch(`${tidemark.url}v1/workspaces/live/files/first?at_least=${position}`)
	await page.waitForTimeout(1000)
	assert.equal(await figure('Received'), 1, 'the list changes while it is paused')
	await page.keyboard.press('p')
	await row(page, '/last').waitFor()
	const received = await figure('Received')
	const skipped = await figure('Skipped')
	const shown = await page.locator('.changes li').count()
	t.diagnostic(`${received} received, ${shown} shown, ${skipped} skipped`)
	assert.equal(received, many + 2)
	assert.equal(shown, 100)
	assert.equal(skipped, many + 1 - 100, 'one of the 101 before was shown, and moved out of the list')
	await accessible(page, 'live')
	await close(page)
})

const cause = (reason, message, more) => {
	const failed = { first_failed_at: hoursAgo(9), last_failed_at: hoursAgo(2) }
	const example = { entry: '3:40112', reason, message, times: 1, dlq_position: '3:7', ...failed, ...more }
	return { reason, entries: 1, records: 1, ...failed, ...more, example }
}
const causes = {
	entries: 2,
	reasons: [
		cause('sink_rejected', '400 mapper_parsing_exception', { sink: 'search' }),
		cause('beyond_dedupe_window', 'it is older than the events that are remembered'),
	],
}

test('health shows each partition, and explains what is red', async () => {
	const page = await open(browser, `${tidemark.url}#/health`)
	await page.getByText('Partitions').waitFor()
	assert.equal(await page.locator('tbody tr').count(), 4)
	assert.equal(await page.locator('.bad').count(), 0)
	await accessible(page, 'health')
	const lag = [0, 95, 1.4, 31]
	const red = {
		ready: false,
		reason: 'topic fastio-files-table: the local copy is still being read',
		partitions: lag.map((seconds, i) => ({
			partition: i, position: `${i}:${40_817 - 213 * i}`, lag_records: Math.round(13 * seconds), lag_seconds: seconds,
			ready: i !== 1,
		})),
		duplicates: 3,
		dead_lettered: 2,
	}
	await page.route('**/v1/dlq', route => route.fulfill({ json: causes }))
	await page.route('**/v1/status', route => route.fulfill({ json: red }))
	await page.getByText('the local copy is still being read').waitFor()
	await page.getByText('tidemark dlq list', { exact: true }).waitFor()
	await page.getByText('tidemark doctor', { exact: true }).first().waitFor()
	await page.getByText('Processing is 95 s behind').waitFor()
	await page.getByRole('link', { name: 'sink_rejected (search)' }).waitFor()
	await accessible(page, 'health, red')
	await shot(page, 'page-health', { fullPage: true })
	const json = { code: 'forbidden', detail: 'the token has not the right read' }
	await page.route('**/v1/status', route => route.fulfill({ status: 403, json }))
	await page.reload()
	await page.getByRole('alert').getByText('The token has not the right read.').waitFor()
	assert.equal(await page.getByText('Loading').count(), 0)
	await page.unroute('**/v1/status')
	await page.getByText('Partitions').waitFor()
	await page.evaluate(() => {
		navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))
	})
	await page.route('**/v1/status', route => route.fulfill({ json: red }))
	await page.getByRole('button', { name: 'Copy the command tidemark dlq list' }).click()
	await page.getByText('Not allowed', { exact: true }).waitFor()
	await close(page)
})

test('the keyboard reaches everything', async () => {
	const page = await open(browser, tidemark.url)
	await row(page, '123').waitFor()
	await page.keyboard.press('?')
	await page.locator('dialog[open]').waitFor()
	await accessible(page, 'keys')
	await page.keyboard.press('Escape')
	await page.keyboard.press('/')
	await page.keyboard.type('123')
	await page.keyboard.press('Enter')
	await row(page, 'acme.docx').waitFor()
	assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1', 'a new view is read from its heading')
	await page.keyboard.press('j')
	await page.keyboard.press('j')
	await page.keyboard.press('k')
	await page.keyboard.press('Enter')
	await page.getByText('tidemark why 123 2vd').waitFor() // the first one by path
	await page.keyboard.press('Escape')
	await row(page, 'acme.docx').waitFor()
	await page.keyboard.press('Escape')
	await page.getByText('Recent:').waitFor()
	assert.equal(await page.evaluate(() => performance.getEntriesByName('data').length), 1, 'marks are kept for ever')
	await close(page)
})

test('a hidden tab has no stream, and continues where it was', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123`)
	const hide = hidden =>
		page.evaluate(is => {
			Object.defineProperty(document, 'hidden', { configurable: true, value: is })
			document.dispatchEvent(new Event('visibilitychange'))
		}, hidden)
	await page.locator('.mark.live').waitFor()
	await page.waitForTimeout(1500) // the data is loaded once more after the first cursor
	const streams = []
	page.on('request', request => request.resourceType() === 'eventsource' && streams.push(request.url()))
	const ended = page.waitForEvent('requestfailed', request => request.url().includes('/changes?'))
	await hide(true)
	await ended
	await tidemark.send('added', { workspace_id: '123', object_id: '2hd', path: '/hidden.txt' })
	await page.waitForTimeout(1000)
	assert.equal(await row(page, 'hidden.txt').count(), 0, 'a hidden tab loads changes')
	await hide(false)
	await row(page, 'hidden.txt').waitFor()
	assert.equal(streams.length, 1)
	assert.ok(!streams[0].includes('cursor=latest'), 'it began anew')
	await close(page)
})

test('an answer that is too old is said, and what was loaded stays', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123`)
	await page.locator('.mark.live').waitFor()
	await row(page, 'q1.pdf').waitFor()
	const json = { code: 'stale', detail: 'The answer would be 40s old, and at most 30s is allowed: see /v1/status' }
	const headers = { 'Retry-After': '1' }
	const counts = /\/v1\/workspaces\/123(\?|$)/
	await page.route(counts, route => route.fulfill({ status: 503, json, headers }))
	await tidemark.send('updated', { workspace_id: '123', object_id: '2nb', size: 77 })
	await page.locator('.banner', { hasText: json.detail }).waitFor()
	await page.getByText('77 B').waitFor()
	assert.equal(await page.locator('.figure', { hasText: 'Trashed' }).count(), 1, 'the counts are shown still')
	await page.unroute(counts)
	await page.locator('.banner').waitFor({ state: 'detached' })
	await close(page)
})

test('a server that is gone is said, and what was missed appears', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123`)
	await page.locator('.mark.live').waitFor()
	await row(page, 'q1.pdf').waitFor()
	await tidemark.kill()
	await page.locator('.banner', { hasText: 'The server does not answer' }).waitFor()
	await page.locator('.mark.retrying').waitFor()
	assert.equal(await row(page, 'q1.pdf').count(), 1, 'what was loaded is shown still')
	await accessible(page, 'stale')
	await tidemark.run()
	await tidemark.send('added', { workspace_id: '123', object_id: '2bk', path: '/back.txt', name: 'back.txt' })
	await row(page, 'back.txt').waitFor({ timeout: 40_000 })
	await page.locator('.banner').waitFor({ state: 'detached' })
	await close(page)
})

test('the checks of all tests find what they are for', async () => {
	const page = await open(browser, tidemark.url)
	await row(page, '123').waitFor()
	await page.evaluate(() => {
		document.head.append(Object.assign(document.createElement('style'), { textContent: 'a { color: red }' }))
		document.querySelector('main').append(document.createElement('img'))
		fetch('http://127.0.0.1:1/').catch(() => {})
	})
	await assert.rejects(accessible(page, 'broken'), /image-alt/)
	const faults = page.faults.splice(0).join()
	assert.match(faults, /refused by the policy: style-src-elem/)
	assert.match(faults, /refused by the policy: connect-src/)
	await close(page)
})
