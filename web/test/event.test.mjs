import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { accessible, close, launch, open } from './browser.mjs'
import { Tidemark } from './tidemark.mjs'

let browser, tidemark
before(async () => {
	tidemark = await Tidemark.start()
	browser = await launch()
})
after(async () => {
	await browser?.close()
	await tidemark?.stop()
})

const file = { workspace_id: '123', object_id: '2q3', path: '/reports/q3.pdf', name: 'q3.pdf', mime: 'application/pdf' }
const hop = (page, name) => page.locator('.hops > li').filter({ has: page.getByRole('heading', { name }) })
const event = position => `${tidemark.url}#/workspaces/123/events/${position}`

test('an event is followed from its webhook to each sink', async () => {
	await tidemark.send('added', { ...file, size: 182_330 })
	const position = await tidemark.send('moved', { ...file, path: '/reports/2026/q3.pdf' })
	const page = await open(browser, event(position))
	await hop(page, 'Event').getByText('workspace_storage_file_moved').first().waitFor()
	const [partition, offset] = position.split(':')
	await hop(page, 'Log').getByText(`partition ${partition}, offset ${offset}`).waitFor()
	await hop(page, 'Fold accepted').waitFor()
	await page.locator('.diff tr', { hasText: 'path' }).filter({ hasText: /\/reports\/q3.pdf.*\/reports\/2026\/q3.pdf/ }).waitFor()
	await hop(page, 'Sink search delivered').waitFor() // it is asked for again while something is pending
	await page.getByText('Payload').click()
	await page.locator('.record', { hasText: '"path": "/reports/2026/q3.pdf"' }).first().waitFor()
	await page.getByText('State after it, and before').click()
	await accessible(page, 'event')
	await page.getByText('Payload').click()
	await page.getByText('State after it, and before').click()
	const path = `${process.env.SCREENSHOTS}/page-event.png`
	if (process.env.SCREENSHOTS) await page.screenshot({ path, fullPage: true })
	await close(page)
})

test('a file and the live changes lead to their events', async () => {
	const page = await open(browser, `${tidemark.url}#/workspaces/123/files/2q3`)
	await page.locator('[data-version="1"]').getByRole('link', { name: /^\d+:\d+$/ }).click()
	await hop(page, 'Fold accepted').getByText('The event created the file').waitFor()
	await page.evaluate(() => (location.hash = '#/workspaces/123/live'))
	await page.locator('.mark.live').waitFor()
	const position = await tidemark.send('updated', { ...file, size: 5 })
	await page.getByRole('link', { name: position, exact: true }).click()
	await page.locator('.diff tr', { hasText: 'size' }).getByText('5', { exact: true }).waitFor()
	await close(page)
})

test('a duplicate leads to its first copy', async () => {
	const first = await tidemark.send('updated', { ...file, size: 7, event_id: 'twice' })
	const second = await tidemark.send('updated', { ...file, size: 7, event_id: 'twice' })
	const page = await open(browser, event(second))
	await hop(page, 'Fold duplicate').waitFor()
	await accessible(page, 'duplicate')
	await page.getByRole('link', { name: first, exact: true }).click()
	await hop(page, 'Fold accepted').waitFor()
	await close(page)
})

test('an event that is not there is said, also one of another workspace', async () => {
	const position = await tidemark.send('added', { ...file, workspace_id: 'other' })
	const page = await open(browser, event(position))
	await page.getByText('There is no such event').waitFor()
	await accessible(page, 'no event')
	await close(page)
})

const pending = {
	position: '1:7', workspace_id: '123', sent_at: null, received_at: '2026-11-30T10:00:00Z', payload_base64: '/2Fi',
	verdict: 'pending', sinks: [{ sink: 'notify', channel: 'urgent', result: 'pending', detail: 'not folded yet' }],
}
const rejected = {
	...pending, verdict: 'dead_lettered', reason: 'not_json', dead_letter: '1:7',
	sinks: [{ sink: 'notify', channel: 'urgent', result: 'rejected', dead_letter: 'fastio-notify/1:7@notify-urgent' }],
}

test('a pending event is asked for again, and a rejected one leads to its dead letter', async () => {
	const page = await open(browser, tidemark.url)
	let answer = pending
	let asked = 0
	await page.route('**/events/1%3A7', route => {
		asked++
		return route.fulfill({ json: answer })
	})
	await page.evaluate(() => (location.hash = '#/workspaces/123/events/1:7'))
	await hop(page, 'Fold pending').waitFor()
	await accessible(page, 'pending event')
	answer = rejected
	await hop(page, 'Fold dead letter').waitFor()
	const links = await page.locator('.hops a').evaluateAll(all => all.map(a => a.getAttribute('href')))
	assert.deepEqual(links, ['#/dead-letters/1%3A7', '#/dead-letters/fastio-notify%2F1%3A7%40notify-urgent'])
	const before = asked
	await page.waitForTimeout(2500)
	assert.equal(asked, before, 'nothing is pending, and it is asked for still')
	await close(page)
})

test('an event that stays pending is asked for ever less often, and after 5 minutes only on demand', async () => {
	const page = await open(browser, tidemark.url)
	await page.clock.install()
	let asked = 0
	await page.route('**/events/1%3A7', route => {
		asked++
		return route.fulfill({ json: pending })
	})
	const wait = async (times, time) => {
		for (let i = 0; i < times; i++) {
			await page.clock.fastForward(time)
			await page.waitForTimeout(50) // the answer is not a timer
		}
	}
	await page.evaluate(() => (location.hash = '#/workspaces/123/events/1:7'))
	await hop(page, 'Fold pending').waitFor()
	await wait(15, 1000)
	assert.ok(asked >= 2 && asked <= 5, `${asked} requests in 15 s`)
	await wait(30, 10_000)
	assert.ok(asked <= 16, `${asked} requests in 5 minutes`)
	const again = page.getByRole('button', { name: 'Look again' })
	await again.waitFor()
	const before = asked
	await wait(10, 60_000)
	assert.equal(asked, before, 'it is asked for still')
	await again.click()
	await again.waitFor({ state: 'detached' })
	for (let i = 0; i < 100 && asked < before + 2; i++) await wait(1, 1000) // a slow machine misses some
	assert.ok(asked >= before + 2, `${asked - before} requests on demand`)
	await close(page)
})

test('an event that has expired, and one that names no file', async () => {
	const page = await open(browser, tidemark.url)
	const json = { code: 'event_expired', detail: 'the event is older than the retention of the events topic' }
	await page.route('**/events/1%3A8', route => route.fulfill({ status: 410, json }))
	await page.evaluate(() => (location.hash = '#/workspaces/123/events/1:8'))
	await page.getByRole('heading', { name: 'Not kept any more' }).waitFor()
	assert.equal(await page.getByRole('button', { name: 'Try again' }).count(), 0, 'it will not come back')
	const position = await tidemark.send('added', { workspace_id: '123', path: '/none' })
	await page.goto(event(position))
	await hop(page, 'Fold passed').getByText('It names no file.').waitFor()
	await close(page)
})
