import { useEffect, useState } from 'preact/hooks'
import { type File, type FilePage, type Workspace as State, workspacePath } from './api'
import { useFeed } from './feed'
import { bytes, count, Time } from './format'
import { useLoad } from './load'
import { Crumbs, FeedMark, Figure, inWorkspace, Pages, Shown, useCursors, useFirstPage } from './parts'
import { opened } from './recent'
import { fileLink, liveLink, type Route, workspaceLink } from './route'
import { Usage, useUsage } from './usage'

export function Workspace({ route }: { route: Route }) {
	const { workspace, query } = route
	const words = query.get('q') ?? ''
	const prefix = query.get('prefix') ?? (query.get('by') === 'id' ? '' : '/')
	const status = query.get('status') ?? 'active'
	const state = useLoad<State>(workspacePath(workspace))
	const selection = JSON.stringify([workspace, words, prefix, status])
	const pages = useCursors(selection)
	const found = state.data !== undefined
	useEffect(() => {
		if (found) opened(workspace)
	}, [workspace, found])
	const asked = new URLSearchParams({ limit: '50', status })
	if (words) asked.set('q', words)
	else asked.set('kind', 'all')
	if (prefix && !(words && prefix === '/')) asked.set('path_prefix', prefix)
	const cursor = pages[0].at(-1)
	if (cursor) asked.set('cursor', cursor)
	const list = useLoad<FilePage>(`${workspacePath(workspace)}/${words ? 'search' : 'files'}?${asked}`)
	useFirstPage(pages, list, page => page.files)
	// The counts follow the files a moment later, and no change says when.
	const usage = useUsage(workspace)
	const reload = (position?: string) => {
		state.reload(position)
		usage.reload(position)
		list.reload()
	}
	const feed = useFeed(workspace, change => reload(change.position), reload)
	return (
		<>
			<Crumbs of={inWorkspace(workspace).slice(0, 1)}>
				<a class="aside" href={liveLink(workspace)}>
					Live changes
				</a>
			</Crumbs>
			<h1>
				{workspace} <FeedMark state={feed} />
			</h1>
			<Shown of={state} missing="There is no such workspace">
				{w => (
					<>
						<Figures of={w} />
						<Usage of={usage} state={w} />
						<h2>Files</h2>
						<Selection key={selection} {...{ workspace, words, prefix, status }} />
						<Shown of={list}>
							{page => (
								<>
									<Files page={page} none={<NoFiles {...{ state: w, words, prefix, status }} />} />
									<Pages of={pages} next={page.next_cursor} />
								</>
							)}
						</Shown>
					</>
				)}
			</Shown>
		</>
	)
}

function Figures({ of }: { of: State }) {
	return (
		<dl class="figures">
			<Figure name="Files">{count(of.files)}</Figure>
			<Figure name="Size">{bytes(of.bytes)}</Figure>
			<Figure name="Trashed">{count(of.trashed)}</Figure>
			<Figure name="Events">{count(of.events)}</Figure>
			<Figure name="Members">{count(of.members?.length ?? 0)}</Figure>
			<Figure name="Last event">
				<Time at={of.last_event_at} />
			</Figure>
		</dl>
	)
}

interface Selected {
	workspace: string
	words: string
	prefix: string
	status: string
}

function Selection(given: Selected) {
	const [words, setWords] = useState(given.words)
	const [prefix, setPrefix] = useState(given.prefix)
	const show = (status: string) => {
		location.hash = workspaceLink(given.workspace, {
			q: words.trim(),
			prefix: prefix === '/' ? '' : prefix,
			by: prefix === '' ? 'id' : '',
			status: status === 'active' ? '' : status,
		})
	}
	return (
		<form
			class="bar"
			role="search"
			onSubmit={event => {
				event.preventDefault()
				show(given.status)
			}}
		>
			<label>
				Search names and paths
				<input data-search type="search" value={words} onInput={event => setWords(event.currentTarget.value)} />
			</label>
			<label>
				Path begins with
				<input
					value={prefix}
					placeholder="any, by file id"
					onInput={event => setPrefix(event.currentTarget.value)}
					spellcheck={false}
				/>
			</label>
			<label>
				Status
				<select value={given.status} onChange={event => show(event.currentTarget.value)}>
					<option value="active">active</option>
					<option value="trashed">trashed</option>
					<option value="all">all</option>
				</select>
			</label>
			<button type="submit">Show</button>
		</form>
	)
}

function NoFiles({ state, words, prefix, status }: Omit<Selected, 'workspace'> & { state: State }) {
	const link = (query: Record<string, string>) => workspaceLink(state.workspace_id, query)
	return (
		<div class="state">
			<h3>No {status === 'all' ? '' : `${status} `}file here</h3>
			{words && (
				<p>
					No name or path has these words. <a href={link({})}>All files</a>
				</p>
			)}
			{!words && prefix !== '' && (
				<p>
					No path begins with <code>{prefix}</code>. Files without a path are only in the order of ids:{' '}
					<a href={link({ by: 'id' })}>by id</a>
				</p>
			)}
			{status === 'active' && state.trashed > 0 && (
				<p>
					{count(state.trashed)} are trashed: <a href={link({ by: 'id', status: 'trashed' })}>show them</a>
				</p>
			)}
		</div>
	)
}

function Files(props: { page: FilePage; none: preact.JSX.Element }) {
	if (props.page.files.length === 0) return props.none
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Files">
			<table>
				<thead>
					<tr>
						<th scope="col">File</th>
						<th scope="col" class="number">Size</th>
						<th scope="col" class="extra">Type</th>
						<th scope="col" class="extra">Status</th>
						<th scope="col" class="number extra">Version</th>
						<th scope="col">Updated</th>
					</tr>
				</thead>
				<tbody>
					{props.page.files.map(f => (
						<tr key={f.file_id}>
							<td>
								<Path file={f} />
							</td>
							<td class="number">{bytes(f.size)}</td>
							<td class="extra type" title={f.mime}>
								{f.kind ?? f.mime ?? '–'}
							</td>
							<td class="extra word">
								{f.status}
								{f.incomplete && ', incomplete'}
							</td>
							<td class="number extra">{f.version}</td>
							<td>
								<Time at={f.updated_at} />
							</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}

/** A path of which each folder leads to the files in it. */
function Path({ file }: { file: File }) {
	const path = file.path ?? ''
	const cut = path.lastIndexOf('/') + 1
	const folders = path.slice(0, cut).split('/').slice(0, -1)
	let prefix = ''
	return (
		<span class="path">
			{folders.map(name => {
				prefix += `${name}/`
				return (
					<a key={prefix} class="folder" href={workspaceLink(file.workspace_id, { prefix: prefix === '/' ? '' : prefix })}>
						{name}/
					</a>
				)
			})}
			<a data-row href={fileLink(file.workspace_id, file.file_id)}>
				{path.slice(cut) || file.name || file.file_id}
			</a>
		</span>
	)
}
