// Opens pages in Chromium, and checks what must be true of each.
import assert from 'node:assert/strict'
import { access } from 'node:fs/promises'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const wide = { width: 1100, height: 760 }
const places = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

export async function launch() {
	for (const executablePath of places) {
		if (!executablePath || !(await access(executablePath).then(() => true, () => false))) continue
		const root = process.getuid?.() === 0 // Chromium's sandbox does not start as root
		return chromium.launch({ executablePath, args: root ? ['--no-sandbox'] : [] })
	}
	throw new Error('Chromium was not found: `apt install chromium`, or set CHROMIUM to its path')
}

/** Opens a page in a context of its own. Its faults are what the page must never have. */
export async function open(browser, url, options = {}) {
	const context = await browser.newContext({ viewport: wide, ...options })
	const page = await context.newPage()
	page.setDefaultTimeout(20_000)
	page.faults = []
	page.on('pageerror', error => page.faults.push(`${error}`))
	page.on('console', message => {
		const text = message.text()
		// The browser reports a refused request itself.
		if (message.type() === 'error' && !text.startsWith('Failed to load resource')) page.faults.push(text)
	})
	await page.addInitScript(() => {
		addEventListener('securitypolicyviolation', event => {
			console.error(`refused by the policy: ${event.violatedDirective} ${event.blockedURI}`)
		})
	})
	const { origin } = new URL(url)
	page.other = []
	page.on('request', request => {
		if (new URL(request.url()).origin !== origin) page.other.push(request.url())
	})
	await page.goto(url)
	return page
}

/** Closes the page. It has refused nothing, thrown nothing and asked no other host. */
export async function close(page) {
	await page.context().close()
	assert.deepEqual(page.faults, [])
	assert.deepEqual(page.other, [])
}

export const phone = { width: 360, height: 740 }
// A scheme changes nothing but colors, so each width has one of them.
const looks = [['light', phone], ['dark', wide]]

/** Axe finds nothing, light on a phone and dark on a wide screen. Neither the page nor a table is wider than that. */
export async function accessible(page, view) {
	const violations = []
	await page.evaluate(axe.source)
	for (const [colorScheme, size] of looks) {
		await page.emulateMedia({ colorScheme })
		await page.setViewportSize(size)
		const result = await page.evaluate(() => window.axe.run())
		for (const v of result.violations) {
			violations.push(`${view}, ${colorScheme}, ${size.width}: ${v.id}: ${v.nodes.map(n => n.html).join(' ')}`)
		}
		const cut = size.width > 400 ? [] : await page.evaluate(() =>
			[...document.querySelectorAll('.wide:not(.tall)')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel))
		if (cut.length > 0) violations.push(`${view}, ${size.width}: cut off: ${cut.join(', ')}`)
		const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
		if (over > 0) violations.push(`${view}, ${size.width}: ${over} px wider than the screen`)
	}
	await page.emulateMedia({ colorScheme: null })
	await page.setViewportSize(wide)
	assert.deepEqual(violations, [])
}
