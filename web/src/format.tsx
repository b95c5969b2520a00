import type { Size } from './api'

const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']

/** A size with three digits. */
export function bytes(size: Size | undefined): string {
	if (size === undefined) return '–'
	let unit = 0
	let value = Number(size)
	while (value >= 1000 && unit < units.length - 1) {
		value /= 1000
		unit++
	}
	return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

export const count = (n: number | bigint) => n.toLocaleString('en')

export const entries = (n: number) => `${count(n)} ${n === 1 ? 'entry' : 'entries'}`

/** The type of an event, without what all those of files begin with. */
export const eventName = (event: string) => event.replace(/^workspace_storage_/, '')

/** A duration in seconds, short. */
export function duration(seconds: number): string {
	if (seconds < 10) return `${Number(seconds.toFixed(1))} s`
	if (seconds < 120) return `${Math.round(seconds)} s`
	if (seconds < 7200) return `${Math.round(seconds / 60)} min`
	return `${Math.round(seconds / 3600)} h`
}

/** A time in the reader's zone, with the exact one in the title. */
export function Time({ at }: { at?: string | null }) {
	if (!at) return <>–</>
	const time = new Date(at)
	const two = (n: number) => String(n).padStart(2, '0')
	const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`
	return (
		<time dateTime={at} title={at}>
			{day} {clock(time.getTime())}
		</time>
	)
}

export function clock(at: number): string {
	const time = new Date(at)
	return [time.getHours(), time.getMinutes(), time.getSeconds()].map(n => String(n).padStart(2, '0')).join(':')
}

/** Quotes a word for a shell. */
export const shellWord = (word: string) =>
	/^[\w@%+=:,./-]+$/.test(word) && !word.startsWith('-') ? word : `'${word.replaceAll("'", `'\\''`)}'`

/** Makes a sentence of the detail of an error. */
export const sentence = (text: string) =>
	text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? '' : '.')

/** The text of bytes that need not be UTF-8. */
export const textOf = (base64: string) =>
	new TextDecoder().decode(Uint8Array.from(atob(base64), character => character.charCodeAt(0)))

/** A value of a field. */
export const valueOf = (value: unknown) => {
	if (value === undefined || value === null) return 'none'
	return typeof value === 'object' ? JSON.stringify(value) : String(value)
}
