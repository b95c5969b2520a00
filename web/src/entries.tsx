import { connection } from './connection'
import {
	DeadLettersShown,
	DryRun,
	type Entry,
	type EntryPage,
	path,
	Place,
	reasonOf,
	Resolved,
	type Selection,
} from './deadletters'
import { count, entries, Time } from './format'
import { useLoad, useReloadOn } from './load'
import { Pages, useCursors, useFirstPage } from './parts'
import { entryLink, type Route, workspaceLink } from './route'
import { useKept, useStore } from './store'

const none: ReadonlySet<string> = new Set()

/** The dead letters one by one: those of a reason and sink, or all. */
export function Entries({ route: { query } }: { route: Route }) {
	const pages = useCursors()
	const [chosen, setChosen] = useKept<ReadonlySet<string>>('chosen', none)
	const asked = new URLSearchParams(query)
	asked.set('limit', '50')
	const cursor = pages[0].at(-1)
	if (cursor) asked.set('cursor', cursor)
	const list = useLoad<EntryPage>(`${path}?${asked}`)
	const { status } = useStore(connection)
	useReloadOn(status?.dead_lettered, list.reload)
	useFirstPage(pages, list, page => page.entries)

	const [reason, sink] = [query.get('reason') ?? '', query.get('sink') ?? '']
	const all = query.has('resolved') ? 'all open ones' : 'all'
	const choose = (ids: string[], add: boolean) => {
		const next = new Set(chosen)
		for (const id of ids) add ? next.add(id) : next.delete(id)
		setChosen(next)
	}
	return (
		<>
			<Place />
			<h1>{reason ? reasonOf({ reason, sink }) : 'All dead letters'}</h1>
			<DeadLettersShown of={list}>
				{page =>
					page.entries.length === 0 ? (
						<p class="state">There are no such dead letters.</p>
					) : (
						<>
							<p>
								{entries(page.total)}
								{query.has('resolved') && ', also those that were replayed or dropped'}
								{chosen.size > 0 && (
									<>
										, {count(chosen.size)} selected{' '}
										<button type="button" class="small" onClick={() => setChosen(none)}>
											Select none
										</button>
									</>
								)}
							</p>
							{chosen.size > 0 ? (
								<DryRun selection={{ entries: [...chosen] }} entries={`${count(chosen.size)} selected`} />
							) : (
								<DryRun selection={selectionOf(query)} entries={all} />
							)}
							<Table of={page.entries} {...{ chosen, choose }} />
							<Pages of={pages} next={page.next_cursor} />
						</>
					)
				}
			</DeadLettersShown>
		</>
	)
}

/** The selection of the query of a view, as the body of a job has it. */
function selectionOf(query: URLSearchParams): Selection {
	const [workspace_id, event_id, since] = ['workspace_id', 'event_id', 'since'].map(name => query.get(name) ?? undefined)
	const all = (name: string) => (query.has(name) ? query.getAll(name) : undefined)
	return { reasons: all('reason'), sinks: all('sink'), entries: all('entry'), workspace_id, event_id, since }
}

interface Choice {
	chosen: ReadonlySet<string>
	choose: (ids: string[], add: boolean) => void
}

function Table({ of, chosen, choose }: { of: Entry[] } & Choice) {
	const open = of.filter(e => !e.resolved).map(e => e.entry)
	const resolved = open.length < of.length
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Entries">
			<table class="entries">
				<thead>
					<tr>
						<th scope="col">
							<input
								type="checkbox"
								aria-label="Select all of this page"
								disabled={open.length === 0}
								checked={open.length > 0 && open.every(id => chosen.has(id))}
								onChange={event => choose(open, event.currentTarget.checked)}
							/>
						</th>
						<th scope="col">Entry</th>
						<th scope="col" class="extra">Last failed</th>
						<th scope="col" class="extra">Workspace</th>
						<th scope="col" class="extra">Event id</th>
						<th scope="col">Message</th>
						{resolved && <th scope="col">Outcome</th>}
					</tr>
				</thead>
				<tbody>
					{of.map(e => (
						<tr key={e.entry + e.dlq_position}>
							<td>
								{!e.resolved && (
									<input
										type="checkbox"
										aria-label={`Select ${e.entry}`}
										checked={chosen.has(e.entry)}
										onChange={event => choose([e.entry], event.currentTarget.checked)}
									/>
								)}
							</td>
							<td>
								<a data-row href={entryLink(e.entry)}>
									{e.entry}
								</a>
							</td>
							<td class="extra">
								<Time at={e.last_failed_at} />
								{e.times > 1 && `, ${count(e.times)} times`}
							</td>
							<td class="extra">
								{e.workspace_id ? <a href={workspaceLink(e.workspace_id)}>{e.workspace_id}</a> : '–'}
							</td>
							<td class="extra id">{e.event_id ?? '–'}</td>
							<td class="text">{e.message ?? '–'}</td>
							{resolved && (
								<td>
									<Resolved of={e} />
								</td>
							)}
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}
