// What several views show.
import type { ComponentChildren } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { Failure } from './api'
import type { FeedState } from './feed'
import { sentence } from './format'
import type { Loaded } from './load'
import { homeLink, workspaceLink } from './route'
import { useKept } from './store'

export interface Showing<T> {
	of: Loaded<T>
	missing?: string // the title of 404
	keep?: boolean // shows the data also below a failure that is not temporary
	children: (data: T) => ComponentChildren
}

/** What a view shows of its data: loading, a failure, or the data, which may be from before the failure. */
export function Shown<T>({ of: { data, failure, retry }, missing, keep, children }: Showing<T>) {
	if (data !== undefined && (!failure || failure.temporary)) return <>{children(data)}</>
	if (failure) {
		return (
			<>
				<Problem {...{ failure, missing, retry }} />
				{keep && data !== undefined && children(data)}
			</>
		)
	}
	return <p class="state" role="status">Loading…</p>
}

export function Problem(props: { failure: Failure; missing?: string; retry: () => void }) {
	const { failure } = props
	const { status } = failure
	const gone = status === 410
	let title = status ? 'No answer to show' : 'No connection'
	if (gone) title = 'Not kept any more'
	if (status === 404 && props.missing) title = props.missing
	const mayPass = failure.temporary || status === 404 || status === 500
	return (
		<div class={gone ? 'state' : 'state problem'} role="alert">
			<h2>{title}</h2>
			<p>{sentence(failure.detail)}</p>
			{failure.temporary && <p>The page tries again by itself.</p>}
			{failure.code && (
				<p class="faint">
					{status > 0 && `${status} `}
					{failure.code}
				</p>
			)}
			{mayPass && (
				<button type="button" onClick={props.retry}>
					Try again
				</button>
			)}
		</div>
	)
}

/** Links to the views above this one. */
export function Crumbs({ of, children }: { of: [link: string, name: string][]; children?: ComponentChildren }) {
	return (
		<nav class="crumbs" aria-label="Place">
			{of.map(([link, name], i) => (
				<span key={link}>
					{i > 0 && ' / '}
					<a href={link}>{name}</a>
				</span>
			))}
			{children}
		</nav>
	)
}

/** What is above a view of a workspace. */
export const inWorkspace = (workspace: string): [string, string][] => [
	[homeLink, 'Workspaces'],
	[workspaceLink(workspace), workspace],
]

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
	const [copied, setCopied] = useState('')
	const copy = async () => {
		setCopied(await navigator.clipboard.writeText(children).then(() => 'Copied', () => 'Not allowed'))
		setTimeout(() => setCopied(''), 2000)
	}
	return (
		<span class="command">
			<code>{children}</code>
			{navigator.clipboard && (
				<button type="button" class="small" aria-label={`Copy the command ${children}`} onClick={copy}>
					{copied || 'Copy'}
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
export type Cursors = readonly [cursors: string[], set: (cursors: string[]) => void]

const firstPage: string[] = []

/** The cursors of a list, of which a view may show several, one at a time. */
export const useCursors = (list?: string): Cursors => useKept('cursors', firstPage, list)

/** Leads to the first page from a last one that has become empty, and from one whose cursor is refused. */
export function useFirstPage<T extends { next_cursor: string | null }>(
	[cursors, set]: Cursors,
	{ data, failure }: Loaded<T>,
	rows: (page: T) => unknown[],
) {
	useEffect(() => {
		const ended = data && !data.next_cursor && rows(data).length === 0
		if (cursors.length > 0 && (failure ? !failure.temporary : ended)) set([])
	}, [data, failure])
}

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
