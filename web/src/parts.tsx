// What several views show.
import type { ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import type { Failure } from './api'
import type { FeedState } from './feed'
import { sentence } from './format'
import type { Loaded } from './load'

/** What a view shows of its data: loading, a failure, or the data, which may be from before the failure. */
export function Shown<T>(props: { of: Loaded<T>; missing?: string; children: (data: T) => ComponentChildren }) {
	const { data, failure } = props.of
	if (data !== undefined && (!failure || failure.passing)) return <>{props.children(data)}</>
	if (failure) return <Problem failure={failure} missing={props.missing} retry={props.of.retry} />
	return <p class="state" role="status">Loading…</p>
}

export function Problem(props: { failure: Failure; missing?: string; retry: () => void }) {
	const { failure } = props
	let title = failure.status ? 'No answer to show' : 'No connection'
	if (failure.status === 404 && props.missing) title = props.missing
	return (
		<div class="state problem" role="alert">
			<h2>{title}</h2>
			<p>{sentence(failure.detail)}</p>
			{failure.passing && <p>The page tries again by itself.</p>}
			{failure.code && (
				<p class="faint">
					{failure.status > 0 && `${failure.status} `}
					{failure.code}
				</p>
			)}
			<button type="button" onClick={props.retry}>
				Try again
			</button>
		</div>
	)
}

/** Names and values, without those that have none. */
export function Fields({ of }: { of: [string, ComponentChildren][] }) {
	return (
		<dl class="fields">
			{of
				.filter(([, value]) => value !== undefined && value !== '' && value !== null)
				.map(([name, value]) => (
					<div key={name}>
						<dt>{name}</dt>
						<dd>{value}</dd>
					</div>
				))}
		</dl>
	)
}

/** A command to run in a shell. */
export function Command({ children }: { children: string }) {
	const [copied, setCopied] = useState(false)
	const copy = async () => {
		await navigator.clipboard.writeText(children)
		setCopied(true)
		setTimeout(() => setCopied(false), 2000)
	}
	return (
		<span class="command">
			<code>{children}</code>
			{navigator.clipboard && (
				<button type="button" class="small" aria-label={`Copy the command ${children}`} onClick={() => void copy()}>
					{copied ? 'Copied' : 'Copy'}
				</button>
			)}
		</span>
	)
}

export function Figure(props: { name: string; bad?: boolean; children: ComponentChildren }) {
	return (
		<div class="figure">
			<dt>{props.name}</dt>
			<dd class={props.bad ? 'bad' : ''}>{props.children}</dd>
		</div>
	)
}

const feedTexts: Record<FeedState, string> = { connecting: 'connecting', live: 'live', retrying: 'reconnecting' }

export function FeedMark({ state }: { state: FeedState }) {
	return <span class={`mark ${state}`}>{feedTexts[state]}</span>
}

/** The cursors of the pages up to the shown one, the last of which is its own. */
export type Cursors = [cursors: string[], set: (cursors: string[]) => void]

export function Pages({ of: [cursors, set], next }: { of: Cursors; next: string | null }) {
	if (cursors.length === 0 && !next) return null
	return (
		<div class="pages">
			<button type="button" disabled={cursors.length === 0} onClick={() => set(cursors.slice(0, -1))}>
				Previous page
			</button>
			<button type="button" disabled={!next} onClick={() => next && set([...cursors, next])}>
				Next page
			</button>
		</div>
	)
}
