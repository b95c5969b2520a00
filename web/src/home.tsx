import { useState } from 'preact/hooks'
import type { WorkspacePage } from './api'
import { connection } from './connection'
import { bytes, count, Time } from './format'
import { useLoad, useReloadOn } from './load'
import { Command, Pages, Shown, useCursors, useFirstPage } from './parts'
import { recent } from './recent'
import { workspaceLink } from './route'
import { useStore } from './store'

export function Home() {
	const pages = useCursors()
	const cursor = pages[0].at(-1)
	const asked = new URLSearchParams({ limit: '50', ...(cursor && { cursor }) })
	const list = useLoad<WorkspacePage>(`v1/workspaces?${asked}`)
	const { status } = useStore(connection)
	useReloadOn(status, list.reload) // as often as the status is polled
	useFirstPage(pages, list, page => page.workspaces)
	const ids = recent()
	return (
		<>
			<h1>Workspaces</h1>
			<OpenWorkspace />
			{ids.length > 0 && (
				<nav class="recent" aria-label="Recent workspaces">
					Recent:{' '}
					{ids.map(id => (
						<a key={id} href={workspaceLink(id)}>
							{id}
						</a>
					))}
				</nav>
			)}
			<Shown of={list}>
				{page =>
					page.workspaces.length === 0 ? (
						<div class="state">
							<h2>No workspace yet</h2>
							<p>A workspace appears with its first event. To send one to tidemark dev:</p>
							<Command>tidemark send</Command>
						</div>
					) : (
						<>
							<Rows page={page} />
							<Pages of={pages} next={page.next_cursor} />
						</>
					)
				}
			</Shown>
		</>
	)
}

function Rows({ page }: { page: WorkspacePage }) {
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Workspaces">
			<table>
				<thead>
					<tr>
						<th scope="col">Workspace</th>
						<th scope="col" class="number">Files</th>
						<th scope="col" class="number">Size</th>
						<th scope="col" class="number extra">Events</th>
						<th scope="col" class="extra">Last event</th>
					</tr>
				</thead>
				<tbody>
					{page.workspaces.map(w => (
						<tr key={w.workspace_id}>
							<td>
								<a data-row href={workspaceLink(w.workspace_id)}>
									{w.workspace_id}
								</a>
							</td>
							<td class="number">{count(w.files)}</td>
							<td class="number">{bytes(w.bytes)}</td>
							<td class="number extra">{count(w.events)}</td>
							<td class="extra">
								<Time at={w.last_event_at} />
							</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}

function OpenWorkspace() {
	const [id, setID] = useState('')
	return (
		<form
			class="bar"
			onSubmit={event => {
				event.preventDefault()
				if (id.trim()) location.hash = workspaceLink(id.trim())
			}}
		>
			<label>
				Open by id
				<input data-search value={id} onInput={event => setID(event.currentTarget.value)} spellcheck={false} />
			</label>
			<button type="submit">Open</button>
		</form>
	)
}
