// Jobs and lists in states that are not reached quickly: the answers are of the test.
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

const at = (page, hash) => page.evaluate(h => (location.hash = h), hash)
const button = (within, name) => within.getByRole('button', { name, exact: true })
const figure = (page, name) => page.locator('.figure', { hasText: name })

const job = {
	job: 'j-1', action: 'replay', dry_run: false, state: 'running', selected: 10, done: 3,
	started_at: '2026-11-30T10:00:00Z', more_results: 0, selection: {}, counts: { failed: 1 },
	results: [{ entry: '0:1', result: 'failed', detail: 'the topic refuses it' }],
}
const unknown = { status: 404, json: { code: 'unknown_job', detail: 'this instance has no such job' } }

/** Opens a job whose answer is the value of the function. */
async function openJob(answer, hash = '#/dead-letters/jobs/j-1') {
	const page = await open(browser, `${tidemark.url}#/dead-letters`)
	await page.route('**/v1/dlq/jobs/j-1', answer)
	await at(page, hash)
	return page
}

test('a job shows its progress, is canceled, and says why it failed', async () => {
	let state = job
	const page = await openJob(route => {
		if (route.request().method() === 'DELETE') {
			state = { ...job, state: 'canceled', done: 4 }
			return route.fulfill({ status: 204 })
		}
		return route.fulfill({ json: state })
	})
	await page.getByText('Running: 3 of 10 entries').waitFor()
	await accessible(page, 'running job')
	await button(page, 'Cancel').click()
	await page.getByText('Canceled after 4 of 10 entries').waitFor()
	state = { ...job, state: 'failed', error: 'the brokers do not answer' }
	await page.reload()
	await page.getByText('The brokers do not answer.').waitFor()
	await page.locator('[data-result=failed]', { hasText: 'The topic refuses it.' }).waitFor()
	await accessible(page, 'failed job')
	await at(page, '#/dead-letters/jobs/j-2')
	await page.getByText('There is no such job').waitFor()
	await close(page)
})

const skipped = Array.from({ length: 1000 }, (_, i) => ({ entry: `0:${i}`, result: 'skipped', detail: 'no event' }))

test('a dry run with more results than are kept is followed by a job with its own selection', async () => {
	const selection = { reasons: ['not_json'], sinks: ['a', 'b'], workspace_id: '123' }
	const dryRun = {
		...job, dry_run: true, state: 'done', selected: 2500, done: 2500, more_results: 1500, selection, results: skipped,
		counts: { skipped: 1100, would_replay: 1397, failed: 3 },
	}
	// The query of an address is of no effect: a link must not select more than the dry run did.
	const page = await openJob(route => route.fulfill({ json: dryRun }), '#/dead-letters/jobs/j-1?each=true&sink=c')
	await figure(page, 'would be replayed').getByText('1,397', { exact: true }).waitFor()
	await figure(page, 'failed').locator('.bad').getByText('3', { exact: true }).waitFor()
	await button(page, 'Replay 1,397 entries').click()
	const dialog = page.getByRole('dialog')
	for (const text of ['not_json', 'a, b', '123', '2,500 entries']) {
		await dialog.getByText(text, { exact: true }).waitFor()
	}
	await accessible(page, 'confirmation of a selection')
	let asked
	await page.route('**/v1/dlq/jobs', route => {
		asked = route.request().postDataJSON()
		return route.fulfill({ status: 409, json: { code: 'job_running', detail: 'job j-0 runs' } })
	})
	await button(dialog, 'Replay 1,397 entries').click()
	await page.getByRole('alert').getByText('Job j-0 runs.').waitFor()
	assert.deepEqual(asked, { action: 'replay', dry_run: false, ...selection })

	Object.assign(dryRun, { selection: {}, counts: { skipped: 2500 } })
	await page.reload()
	await page.getByText('There is nothing to replay.').waitFor()
	assert.equal(await page.getByRole('button', { name: /^Replay/ }).count(), 0)
	await close(page)
})

test('a job that is lost with its server is shown as it was', async () => {
	let lost = false
	const page = await openJob(route => route.fulfill(lost ? unknown : { json: job }))
	await page.getByText('Running: 3 of 10 entries').waitFor()
	lost = true
	await page.getByText('The server has restarted since').waitFor()
	await page.getByText('Running: 3 of 10 entries').waitFor()
	await page.locator('[data-result=failed]', { hasText: 'The topic refuses it.' }).waitFor()
	assert.equal(await button(page, 'Cancel').count(), 0)
	await accessible(page, 'lost job')
	await page.getByRole('link', { name: 'Dead letters that are left' }).click()
	await page.getByText('There are no dead letters').waitFor()
	await close(page)
})

const entry = {
	entry: '0:1', reason: 'not_json', first_failed_at: job.started_at, last_failed_at: job.started_at, times: 1,
	dlq_position: '0:0',
}

test('a job that starts after its view was left leads nowhere, and one without a session to the token', async () => {
	const page = await open(browser, `${tidemark.url}#/dead-letters`)
	const list = { entries: [entry], next_cursor: null, total: 1 }
	await page.route('**/v1/dlq?each=*', route => route.fulfill({ json: list }))
	let answer
	await page.route('**/v1/dlq/jobs', route => {
		if (route.request().method() !== 'POST') return route.continue()
		answer = () => route.fulfill({ status: 202, json: job })
	})
	await at(page, '#/dead-letters?each=true')
	await button(page, 'Dry run of all').click()
	await at(page, '#/health')
	await page.getByText('Partitions').waitFor()
	const answered = page.waitForResponse(response => response.status() === 202)
	await answer()
	await answered
	await page.waitForTimeout(300)
	assert.match(page.url(), /#\/health$/)
	await page.route('**/v1/dlq/jobs', route => route.fulfill({ status: 401, json: { detail: 'the token has expired' } }))
	await at(page, '#/dead-letters?each=true')
	await button(page, 'Dry run of all').click()
	await page.getByLabel('Token', { exact: true }).waitFor()
	await close(page)
})

test('an emptied page of entries, and one whose cursor is refused, lead to the first', async () => {
	const page = await open(browser, `${tidemark.url}#/dead-letters`)
	const first = { entries: [entry], next_cursor: 'c', total: 2 }
	let second = { json: { entries: [], next_cursor: null, total: 2 } }
	let asked = 0
	await page.route('**/v1/dlq?each=*', route => {
		if (!route.request().url().includes('cursor=')) return route.fulfill({ json: first })
		asked++
		return route.fulfill(second)
	})
	await at(page, '#/dead-letters?each=true')
	for (const times of [1, 2]) {
		await button(page, 'Next page').click()
		await page.waitForResponse(response => !response.url().includes('cursor='))
		await page.getByText('2 entries').waitFor()
		assert.equal(asked, times)
		second = { status: 400, json: { code: 'bad_cursor', detail: 'start again without a cursor' } }
	}
	await close(page)
})

test('Back leads to the page of entries that was left, with what was selected', async () => {
	const page = await open(browser, `${tidemark.url}#/dead-letters`)
	await page.route('**/v1/dlq?each=*', route => {
		const second = route.request().url().includes('cursor=c')
		const entries = [{ ...entry, entry: second ? '0:2' : '0:1' }]
		return route.fulfill({ json: { entries, next_cursor: second ? null : 'c', total: 2 } })
	})
	await at(page, '#/dead-letters?each=true')
	await page.getByLabel('Select 0:1').check()
	await button(page, 'Next page').click()
	await page.getByRole('link', { name: '0:2' }).click()
	await page.getByRole('heading', { name: 'There is no such dead letter' }).waitFor()
	await page.goBack()
	await page.getByRole('link', { name: '0:2' }).waitFor()
	await button(page, 'Dry run of 1 selected').waitFor()
	await button(page, 'Previous page').click()
	assert.ok(await page.getByLabel('Select 0:1').isChecked())
	await at(page, '#/dead-letters?each=true&reason=x') // another list
	await page.getByRole('link', { name: '0:1' }).waitFor()
	await button(page, 'Dry run of all').waitFor()
	await close(page)
})

test('the last jobs are asked for again while one runs', async () => {
	const page = await open(browser, tidemark.url)
	let state = 'running'
	await page.route('**/v1/dlq/jobs', route => route.fulfill({ json: { jobs: [{ ...job, state }] } }))
	await at(page, '#/dead-letters')
	await page.getByRole('cell', { name: 'running' }).waitFor()
	await page.waitForTimeout(1000) // what is loaded at first is loaded by then
	state = 'done'
	await page.getByRole('cell', { name: 'done' }).waitFor()
	await close(page)
})

test('a view asks for its data once when it opens', async () => {
	const views = [['', /^v1\/workspaces\?/], ['#/dead-letters', /^v1\/dlq$/], ['#/dead-letters?each=true', /^v1\/dlq\?/]]
	for (const [hash, path] of views) {
		const page = await open(browser, `${tidemark.url}#/health`)
		await page.getByText('Partitions').waitFor() // the status is known
		let asked = 0
		page.on('request', request => path.test(request.url().slice(tidemark.url.length)) && asked++)
		await page.waitForResponse('**/v1/status')
		await at(page, hash)
		await page.waitForTimeout(1500) // less than until the next status
		assert.equal(asked, 1, hash)
		await page.reload() // the status is not known yet
		await page.waitForTimeout(1500)
		assert.equal(asked, 2, `${hash}, reloaded`)
		await close(page)
	}
})
