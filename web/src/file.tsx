import type { ComponentChildren } from 'preact'
import { type File as State, filePath, type History, type Version } from './api'
import { useFeed } from './feed'
import { bytes, count, eventName, shellWord, Time, valueOf } from './format'
import { useLoad } from './load'
import { Command, Crumbs, FeedMark, Fields, inWorkspace, Pages, Shown, useCursors, useFirstPage } from './parts'
import { eventLink, type Route } from './route'

export function File({ route }: { route: Route }) {
	const { workspace, id: file } = route
	const state = useLoad<State>(filePath(workspace, file))
	const pages = useCursors()
	const cursor = pages[0].at(-1)
	const page = new URLSearchParams({ limit: '20', ...(cursor && { cursor }) })
	const history = useLoad<History>(`${filePath(workspace, file)}/history?${page}`)
	useFirstPage(pages, history, page => page.versions)
	const reload = () => {
		state.reload()
		history.reload()
	}
	const feed = useFeed(workspace, change => (change.file?.file_id ?? change.file_id) === file && reload(), reload)
	return (
		<>
			<Crumbs of={inWorkspace(workspace)} />
			<h1>
				{state.data?.name ?? file} <FeedMark state={feed} />
			</h1>
			<Shown of={state} missing="There is no such file">
				{f => (
					<>
						<Fields of={fields(f)} />
						{f.incomplete && (
							<p class="state">
								Incomplete: no event that adds this file has arrived yet. Fields of which nothing is known are left out.
							</p>
						)}
					</>
				)}
			</Shown>
			<h2>History</h2>
			<Shown of={history} missing="There is no such file">
				{h => (
					<>
						{h.versions.length > 0 ? <Versions of={h.versions} workspace={workspace} /> : <p class="state">No change is kept.</p>}
						<p class="faint">All changes from position {h.complete_from} on are kept.</p>
						<Pages of={pages} next={h.next_cursor} />
					</>
				)}
			</Shown>
			<h2>Why is it so?</h2>
			<p>This command lists every event of the file and the outcome of each:</p>
			<Command>{`tidemark why ${shellWord(workspace)} ${shellWord(file)}`}</Command>
		</>
	)
}

function fields(f: State): [string, ComponentChildren][] {
	return [
		['Status', f.status + (f.incomplete ? ', incomplete' : '')],
		['Kind', f.kind ?? 'file'],
		['Path', f.path],
		['Name', f.name],
		['Size', f.size === undefined ? undefined : `${bytes(f.size)} (${count(BigInt(f.size))} bytes)`],
		['Type', f.mime],
		['Hash', f.hash],
		['Version', f.version],
		['Position', <a key="position" href={eventLink(f.workspace_id, f.position)}>{f.position}</a>],
		['Last event', f.last_event],
		['Last event id', f.last_event_id],
		['Actor', f.actor_id],
		['Created', f.created_at && <Time at={f.created_at} />],
		['Updated', f.updated_at && <Time at={f.updated_at} />],
		['Deleted', f.deleted_at && <Time at={f.deleted_at} />],
		['Folder id', f.parent_id],
		['File id', f.file_id],
		['Workspace', f.workspace_id],
	]
}

function Versions({ of, workspace }: { of: Version[]; workspace: string }) {
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="History">
			<table>
				<thead>
					<tr>
						<th scope="col" class="number">Version</th>
						<th scope="col" class="extra">Time</th>
						<th scope="col">Event</th>
						<th scope="col" class="extra">Actor</th>
						<th scope="col" class="extra">Changed</th>
						<th scope="col">Position</th>
					</tr>
				</thead>
				<tbody>
					{of.map(v => (
						<tr key={v.position} data-version={v.version}>
							<td class="number">{v.version}</td>
							<td class="extra">
								<Time at={v.at} />
							</td>
							<td title={`${v.event} ${v.event_id}`}>
								{eventName(v.event)}
								{v.late && ' (late)'}
								{v.cause && (
									<>
										, by <a href={eventLink(workspace, v.cause.position)}>{eventName(v.cause.event)}</a> of{' '}
										{v.cause.folder_id}
									</>
								)}
								<div class="second">
									<Changed of={v} />
								</div>
							</td>
							<td class="extra">{v.actor_id ?? '–'}</td>
							<td class="extra">
								<Changed of={v} />
							</td>
							<td>
								<a data-row href={eventLink(workspace, v.position)}>
									{v.position}
								</a>
							</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}

function Changed({ of }: { of: Version }) {
	return (
		<>
			{Object.entries(of.changed).map(([name, { from, to }]) => (
				<div key={name}>
					{name}: {valueOf(from)} → {valueOf(to)}
				</div>
			))}
		</>
	)
}
