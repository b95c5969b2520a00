import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { accessible, close, launch, open } from './browser.mjs'
import { Tidemark } from './tidemark.mjs'

const token = 'the-token-of-the-page-tests-1'

let browser, tidemark, folder
before(async () => {
	folder = await mkdtemp(join(tmpdir(), 'tidemark-tokens-'))
	const file = join(folder, 'tokens.yml')
	const hash = createHash('sha256').update(token).digest('hex')
	await writeFile(file, `- {name: reader, sha256: ${hash}, workspaces: [mine], rights: [read]}\n`)
	tidemark = await Tidemark.start('--auth', 'tokens', '--tokens-file', file)
	browser = await launch()
	for (const workspace_id of ['mine', 'theirs']) {
		await tidemark.send('added', { workspace_id, object_id: 'f', path: `/${workspace_id}.txt` })
	}
})
after(async () => {
	await browser?.close()
	await tidemark?.stop()
	await rm(folder, { recursive: true, force: true })
})

test('a token is asked for, kept in a cookie that scripts cannot read, and removed', async () => {
	const page = await open(browser, tidemark.url)
	const field = page.getByLabel('Token', { exact: true })
	await field.fill('not-a-token-of-this-server')
	await page.keyboard.press('Enter')
	await page.locator('.refusal', { hasText: /./ }).waitFor()
	await accessible(page, 'token')
	await field.fill(token)
	await page.keyboard.press('Enter')
	await page.locator('[data-row]', { hasText: 'mine' }).waitFor()
	assert.equal(await page.locator('[data-row]').count(), 1, "another tenant's workspace is listed")
	const scripts = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]))
	assert.ok(!scripts.includes(token), scripts)
	const [cookie] = await page.context().cookies(`${tidemark.url}v1/status`)
	assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, 'Strict', '/v1'])

	await page.reload()
	await page.locator('[data-row]', { hasText: 'mine' }).click()
	await page.locator('.mark.live').waitFor() // an EventSource with the cookie
	await tidemark.send('added', { workspace_id: 'mine', object_id: 'g', path: '/new.txt' })
	await page.locator('[data-row]', { hasText: 'new.txt' }).waitFor()
	await page.evaluate(() => (location.hash = '#/workspaces/theirs'))
	await page.getByText('There is no such workspace').waitFor()

	const refused = page.waitForResponse(response => response.url().endsWith('/v1/dlq') && response.status() === 403)
	await page.route('**/v1/status', async route => {
		const response = await route.fetch()
		await route.fulfill({ json: { ...(await response.json()), dead_lettered: 2 } })
	})
	await page.evaluate(() => (location.hash = '#/health'))
	await refused
	await page.locator('.figure a', { hasText: '2' }).waitFor()
	assert.equal(await page.getByRole('region', { name: 'Reasons' }).count(), 0, 'the token is not for dead letters')
	await page.unroute('**/v1/status')
	await page.evaluate(() => (location.hash = '#/dead-letters'))
	await page.getByText('Not allowed with this token').waitFor()
	await accessible(page, 'dead letters without the right')

	await page.getByRole('button', { name: 'Sign out' }).click()
	await field.waitFor()
	assert.deepEqual(await page.context().cookies(`${tidemark.url}v1/status`), [])
	await close(page)
})
