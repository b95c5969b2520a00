import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { accessible, close, launch, open } from './browser.mjs'
import { Tidemark } from './tidemark.mjs'

const windowIDs = 256 // that a file remembers: an event older than all of them becomes a dead letter
const dead = []

let browser, tidemark
before(async () => {
	tidemark = await Tidemark.start()
	browser = await launch()
	const file = { workspace_id: '123', object_id: '2q3', path: '/reports/q3.pdf', name: 'q3.pdf' }
	for (let i = 0; i < windowIDs; i++) await tidemark.send('updated', { ...file, size: 1000 + i })
	for (let i = 0; i < 3; i++) {
		const created = new Date(Date.now() - 3_600_000 * (i + 1)).toISOString()
		dead.push(await tidemark.send('updated', { ...file, created, size: 1 + i }))
	}
	await fetch(`${tidemark.url}v1/workspaces/123/files/2q3?at_least=${dead[2]}`)
})
after(async () => {
	await browser?.close()
	await tidemark?.stop()
})

const at = (page, hash) => page.evaluate(h => (location.hash = h), hash)
const button = (within, name) => within.getByRole('button', { name, exact: true })
const shot = async (page, name) => {
	const clip = { x: 0, y: 0, width: 1100, height: 540 }
	if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, clip })
}

/** Waits until so many dead letters are open. */
async function left(entries) {
	for (let i = 0; i < 100; i++) {
		const status = await (await fetch(`${tidemark.url}v1/status`)).json()
		if (status.dead_lettered === entries) return
		await new Promise(resolve => setTimeout(resolve, 100))
	}
	assert.fail(`there are not ${entries} dead letters after 10 s`)
}

test('a dead letter is replayed after a dry run, and leads to its new event', async () => {
	await left(3)
	const page = await open(browser, `${tidemark.url}#/health`)
	const cause = page.getByRole('region', { name: 'Reasons' }).locator('tbody tr', { hasText: 'beyond_dedupe_window' })
	await cause.getByText('3', { exact: true }).waitFor()
	await accessible(page, 'health with dead letters')
	await cause.getByRole('link', { name: 'beyond_dedupe_window' }).click()
	await page.getByText('3 entries').waitFor()
	assert.equal(new URLSearchParams(page.url().split('?')[1]).get('reason'), 'beyond_dedupe_window')
	await page.goBack()
	await page.locator('.figure a', { hasText: '3' }).click()
	await page.locator('tr', { hasText: 'beyond_dedupe_window' }).getByText('3', { exact: true }).waitFor()
	await accessible(page, 'dead letters')
	await page.getByRole('link', { name: 'beyond_dedupe_window' }).click()
	await page.getByText('3 entries').waitFor()
	await page.getByLabel(`Select ${dead[0]}`).check()
	await page.keyboard.press('j') // a ticked box does not keep the keys
	assert.equal(await page.evaluate(() => document.activeElement.getAttribute('href')?.includes('dead-letters')), true)
	await page.getByText('1 selected', { exact: false }).first().waitFor()
	await accessible(page, 'entries')
	await shot(page, 'page-dead-letters')

	await button(page, 'Dry run of 1 selected').press('Enter')
	await page.getByText('Done: 1 of 1 entry').waitFor()
	await page.locator('[data-result=would_replay]', { hasText: dead[0] }).waitFor()
	await accessible(page, 'dry run')
	await button(page, 'Replay 1 entry').click()
	const dialog = page.getByRole('dialog')
	await accessible(page, 'confirmation')
	await button(dialog, 'Cancel').click()
	await left(3) // neither the dry run nor the canceled confirmation has changed anything

	const dryRun = page.url()
	await button(page, 'Replay 1 entry').click()
	await button(dialog, 'Replay 1 entry').press('Enter')
	const replayed = page.locator('[data-result=replayed]')
	await replayed.waitFor()
	await accessible(page, 'job')
	await left(2)
	await replayed.getByRole('link', { name: /^\d+:\d+$/ }).last().click()
	await page.getByText('Newer events came before it').waitFor()
	await page.getByText('It was replayed from the dead letter').waitFor()

	await page.goto(dryRun)
	await button(page, 'Replay 1 entry').click()
	await button(dialog, 'Replay 1 entry').click()
	await page.locator('[data-result=skipped]', { hasText: 'It was replayed before.' }).waitFor()
	await close(page)
})

test('a dead letter shows its record, and leads to its event and back', async () => {
	const page = await open(browser, `${tidemark.url}#/dead-letters/${encodeURIComponent(dead[0])}`)
	await page.getByText('replayed to').waitFor()
	await page.locator('.record', { hasText: '"size": 1,' }).waitFor()
	await page.getByText('dlq.reason').waitFor()
	assert.equal(await page.getByRole('button', { name: /^Dry run/ }).count(), 0, 'it was replayed already')
	await accessible(page, 'dead letter')
	await page.getByRole('link', { name: dead[0], exact: true }).click()
	await page.locator('.hops li', { hasText: 'Fold' }).getByText('dead letter', { exact: true }).waitFor()
	await accessible(page, 'event of a dead letter')
	await page.locator('.hops').getByRole('link', { name: dead[0], exact: true }).click()
	await page.getByText('replayed to').waitFor()
	await at(page, '#/dead-letters/0%3A999999')
	await page.getByRole('heading', { name: 'There is no such dead letter' }).waitFor()
	await close(page)
})

test('all entries of a reason are dropped after a dry run, and are listed with the resolved ones', async () => {
	const page = await open(browser, `${tidemark.url}#/dead-letters`)
	await page.getByRole('link', { name: 'beyond_dedupe_window' }).click()
	await page.getByLabel('Action').selectOption('drop')
	await button(page, 'Dry run of all').click()
	await button(page, 'Drop 2 entries').click()
	await button(page.getByRole('dialog'), 'Drop 2 entries').click()
	await page.locator('[data-result=dropped]').nth(1).waitFor()
	await left(0)
	await page.getByRole('link', { name: 'Dead letters that are left' }).click()
	await page.getByText('There are no dead letters').waitFor()
	await page.getByText('Last jobs').waitFor()
	await accessible(page, 'no dead letters')
	await page.getByRole('link', { name: 'also those that were replayed or dropped' }).click()
	await page.getByText('3 entries, also those').waitFor()
	await page.locator('tr', { hasText: dead[1] }).getByText('dropped').waitFor()
	await page.locator('tr', { hasText: dead[0] }).getByText('replayed to').getByRole('link').waitFor()
	assert.deepEqual((await page.locator('thead th').allInnerTexts()).slice(-2), ['Message', 'Outcome'])
	await close(page)
})

test('the dead letter of a sink leads to the event that wrote its record', async () => {
	const page = await open(browser, tidemark.url)
	const entry = {
		entry: 'fastio-index/1:12@search', reason: 'sink_rejected', sink: 'search', answer: '400 mapper_parsing_exception',
		workspace_id: '123', first_failed_at: '2026-11-30T10:00:00Z', last_failed_at: '2026-11-30T10:00:00Z', times: 1, dlq_position: '1:3',
	}
	const record = {
		topic: 'fastio-dlq', key: null, headers: { a: 'b' }, headers_base64: { c: '/2Fi' },
		value: { op: 'upsert', size: '<size>', position: '1:7' },
	}
	const body = JSON.stringify({ entry, record }).replace('"<size>"', '9007199254740993')
	const headers = { 'Content-Type': 'application/json' }
	await page.route('**/v1/dlq/fastio-index%2F1%3A12%40search', route => route.fulfill({ body, headers }))
	await at(page, '#/dead-letters/fastio-index%2F1%3A12%40search')
	await page.getByText('400 mapper_parsing_exception').waitFor()
	await button(page, 'Dry run of this entry').waitFor()
	await page.locator('.record', { hasText: '"size": 9007199254740993,' }).waitFor()
	await page.locator('.fields div', { hasText: 'Key' }).getByText('none').waitFor()
	await page.locator('.fields div', { hasText: 'c, base64' }).getByText('/2Fi').waitFor()
	const link = page.getByRole('link', { name: '1:7', exact: true })
	assert.equal(await link.getAttribute('href'), '#/workspaces/123/events/1:7')
	await accessible(page, 'dead letter of a sink')
	await close(page)
})

test('a server without dead letters says how to get them', async () => {
	const page = await open(browser, tidemark.url)
	const json = { code: 'dead_letters_not_configured', detail: 'see --dead-letters' }
	await page.route('**/v1/dlq**', route => route.fulfill({ status: 501, json }))
	await at(page, '#/dead-letters')
	await page.getByText('tidemark serve --dead-letters', { exact: true }).waitFor()
	await page.getByText('tidemark dlq list', { exact: true }).waitFor()
	await accessible(page, 'dead letters are off')
	await close(page)
})
