// The activity of a workspace as a plot, and as a table for those who do not see it or do not use a pointer.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Activity as Answer, Hour } from './api'
import { bytes, count, Time } from './format'

const hour = 3_600_000
const week = 7 * 24
const height = 132
const margin = { left: 40, right: 6, top: 8, bottom: 22 }
const series = ['added', 'updated', 'deleted'] as const

export function Activity({ of }: { of: Answer }) {
	const since = Date.parse(of.from)
	const begins = of.windows.map(w => Date.parse(w.start) / hour)
	const last = Math.max(Math.floor(Date.now() / hour), ...begins)
	const begin = Math.min(Math.floor(since / hour), last - week, ...begins)
	const first = begin * hour
	const slots: (Hour | undefined)[] = Array.from({ length: last - begin + 1 })
	for (const [i, w] of of.windows.entries()) slots[begins[i] - begin] = w
	const [pointed, setPointed] = useState(-1)
	const all = summed(of.windows)
	const total = all.added + all.updated + all.deleted
	const summary = `${count(total)} file ${total === 1 ? 'change' : 'changes'} in 7 days: ${parts(all)}`
	return (
		<>
			{total === 0 ? (
				<p class="faint">No file has changed in the last 7 days.</p>
			) : (
				<>
					<Plot slots={slots} first={first} label={summary} pointed={pointed} point={setPointed} />
					<p class="legend">
						{series.map(name => (
							<span key={name} class={name}>
								{name}
							</span>
						))}
						<span>{pointed < 0 ? summary : `${span(first + pointed * hour)}: ${parts(slots[pointed])}`}</span>
					</p>
				</>
			)}
			{since > first + hour && (
				<p class="faint">
					This server has counted since <Time at={of.from} />.
				</p>
			)}
			{of.windows.length > 0 && (
				<details>
					<summary>Activity as a table</summary>
					<Table windows={of.windows} />
				</details>
			)}
		</>
	)
}

const parts = (h?: Pick<Hour, (typeof series)[number]>) =>
	h ? series.map(name => `${count(h[name])} ${name}`).join(', ') : 'no change'

const summed = (windows: Hour[]) => {
	const sum = { added: 0, updated: 0, deleted: 0 }
	for (const w of windows) for (const name of series) sum[name] += w[name]
	return sum
}

function span(at: number): string {
	const from = new Date(at)
	const to = new Date(at + hour)
	const time = (t: Date) => t.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })
	return `${day(from)} ${time(from)} to ${time(to)}`
}

const day = (t: Date) => t.toLocaleDateString('en-GB', { weekday: 'short', day: 'numeric' })

interface Drawn {
	slots: (Hour | undefined)[]
	first: number
	label: string
	pointed: number
	point: (slot: number) => void
}

function Plot({ slots, first, label, pointed, point }: Drawn) {
	const [ref, width] = useWidth<SVGSVGElement>()
	const inner = Math.max(0, width - margin.left - margin.right)
	const step = inner / slots.length
	const base = height - margin.bottom
	const top = rounded(Math.max(...slots.map(s => (s ? s.added + s.updated + s.deleted : 0))))
	const y = (n: number) => base - (n / top) * (base - margin.top)
	const x = (slot: number) => margin.left + slot * step
	const move = (event: PointerEvent) => {
		const at = event.clientX - (event.currentTarget as Element).getBoundingClientRect().left - margin.left
		const slot = Math.floor(at / step)
		point(slot >= 0 && slot < slots.length ? slot : -1)
	}
	return (
		<svg
			ref={ref}
			class="plot"
			role="img"
			aria-label={label}
			height={height}
			onPointerMove={move}
			onPointerLeave={() => point(-1)}
		>
			{[0, top / 2, top].map(n => (
				<g key={n}>
					<path class="grid" d={`M${margin.left} ${y(n)}H${width - margin.right}`} />
					<text x={margin.left - 6} y={y(n) + 4} text-anchor="end">
						{Number.isInteger(n) && count(n)}
					</text>
				</g>
			))}
			{midnights(first, slots.length).map(slot => (
				<g key={slot}>
					<path class="grid" d={`M${x(slot)} ${margin.top}V${base + 4}`} />
					{inner > 300 && slot < slots.length - 12 && (
						<text x={x(slot) + 3} y={height - 6}>
							{day(new Date(first + slot * hour))}
						</text>
					)}
				</g>
			))}
			{pointed >= 0 && (
				<rect class="pointed" x={x(pointed)} y={margin.top} width={Math.max(1, step)} height={base - margin.top} />
			)}
			{series.map((name, i) => (
				<path key={name} class={name} d={columns(slots, i, x, y, step)} />
			))}
		</svg>
	)
}

/** The columns of a series, each on those of the series before it. */
function columns(slots: Drawn['slots'], of: number, x: (n: number) => number, y: (n: number) => number, step: number) {
	const wide = Math.max(1, step - (step > 4 ? 1 : 0))
	return slots
		.map((hour, slot) => {
			if (!hour?.[series[of]]) return ''
			const below = series.slice(0, of).reduce((sum, name) => sum + hour[name], 0)
			return `M${x(slot)} ${y(below)}V${y(below + hour[series[of]])}h${wide}V${y(below)}z`
		})
		.join('')
}

/** The next number of 2, 5 or 10 times a power of ten. */
function rounded(n: number): number {
	const power = 10 ** Math.floor(Math.log10(Math.max(1, n)))
	return power * ([2, 5, 10].find(times => times * power >= n) ?? 10)
}

const midnights = (first: number, hours: number) =>
	Array.from({ length: hours }, (_, slot) => slot).filter(slot => new Date(first + slot * hour).getHours() === 0)

/** The width of an element in pixels, also after it has changed. */
function useWidth<T extends Element>() {
	const ref = useRef<T>(null)
	const [width, setWidth] = useState(0)
	useEffect(() => {
		if (!ref.current) return
		const observer = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width))
		observer.observe(ref.current)
		return () => observer.disconnect()
	}, [])
	return [ref, width] as const
}

function Table({ windows }: { windows: Hour[] }) {
	return (
		<div class="wide tall" role="region" tabIndex={0} aria-label="Activity">
			<table>
				<thead>
					<tr>
						<th scope="col">Hour from</th>
						<th scope="col" class="number">Events</th>
						<th scope="col" class="number">Added</th>
						<th scope="col" class="number">Updated</th>
						<th scope="col" class="number">Deleted</th>
						<th scope="col" class="number">Bytes added</th>
						<th scope="col" class="number">Bytes removed</th>
					</tr>
				</thead>
				<tbody>
					{windows.toReversed().map(w => (
						<tr key={w.start}>
							<td>
								<Time at={w.start} />
							</td>
							<td class="number">{count(w.events)}</td>
							<td class="number">{count(w.added)}</td>
							<td class="number">{count(w.updated)}</td>
							<td class="number">{count(w.deleted)}</td>
							<td class="number">{bytes(w.bytes_added)}</td>
							<td class="number">{bytes(w.bytes_removed)}</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}
