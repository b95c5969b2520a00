import { above, route } from './route'

export const keys: [string, string][] = [
	['/', 'search'],
	['j, k', 'next and previous row'],
	['Enter', 'open the row'],
	['Esc', 'leave the field, or one level up'],
	['n, b', 'next page, page before'],
	['p', 'pause or continue live changes'],
	['?', 'this help'],
]

/** Handles the keys of the page until the returned function is called. */
export function listen(help: () => void): () => void {
	const press = (event: KeyboardEvent) => {
		if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
		const target = event.target as HTMLElement
		const typing = target.matches('input:not([type=checkbox]), select, textarea')
		if (event.key === 'Escape') {
			if (typing) target.blur()
			else location.hash = above(route.get())
			return
		}
		if (typing) return
		const action = actions[event.key] ?? (event.key === '?' ? help : undefined)
		if (!action) return
		event.preventDefault()
		action()
	}
	addEventListener('keydown', press)
	return () => removeEventListener('keydown', press)
}

const actions: Record<string, () => void> = {
	'/': () => {
		const field = document.querySelector<HTMLInputElement>('[data-search]')
		field?.focus()
		field?.select()
	},
	j: () => move(1),
	k: () => move(-1),
	n: () => document.querySelector<HTMLElement>('.pages button:last-child')?.click(),
	b: () => document.querySelector<HTMLElement>('.pages button:first-child')?.click(),
	p: () => document.querySelector<HTMLElement>('[data-pause]')?.click(),
}

/** Moves the focus between rows; Enter then follows the link. */
function move(by: number) {
	const rows = [...document.querySelectorAll<HTMLElement>('[data-row]')]
	const at = rows.indexOf(document.activeElement as HTMLElement)
	rows.at(at < 0 ? (by > 0 ? 0 : -1) : Math.min(Math.max(at + by, 0), rows.length - 1))?.focus()
}
