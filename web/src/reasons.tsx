import { connection } from './connection'
import { DeadLettersShown, type Group, type JobSummary, jobsPath, path, reasonOf, type Summary } from './deadletters'
import { count, Time } from './format'
import { useLoad, usePoll, useReloadOn } from './load'
import { entriesLink, entryLink, jobLink } from './route'
import { useStore } from './store'

const pollEvery = 2000 // milliseconds

/** The dead letters by reason and sink. */
export function Reasons() {
	const list = useLoad<Summary>(path)
	const jobs = useLoad<{ jobs: JobSummary[] }>(jobsPath, { every: pollEvery })
	const { status } = useStore(connection)
	useReloadOn(status?.dead_lettered, () => {
		list.reload()
		jobs.reload()
	})
	usePoll(jobs, all => all.jobs.some(j => j.state === 'running'))
	return (
		<>
			<h1>Dead letters</h1>
			<DeadLettersShown of={list}>
				{({ entries, reasons }) => (
					<>
						{entries === 0 ? (
							<div class="state">
								<h2>There are no dead letters</h2>
								<p>Every event could be read, and no destination of a sink has rejected a record.</p>
							</div>
						) : (
							<Groups of={reasons} />
						)}
						<p>
							<a href={entriesLink({})}>All entries</a>, or{' '}
							<a href={entriesLink({ resolved: 'true' })}>also those that were replayed or dropped</a>
						</p>
						{jobs.data && jobs.data.jobs.length > 0 && <Jobs of={jobs.data.jobs} />}
					</>
				)}
			</DeadLettersShown>
		</>
	)
}

export function Groups({ of }: { of: Group[] }) {
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Reasons">
			<table>
				<thead>
					<tr>
						<th scope="col">Reason</th>
						<th scope="col" class="number">Entries</th>
						<th scope="col" class="extra">First</th>
						<th scope="col" class="extra">Last</th>
						<th scope="col" class="extra">What to fix</th>
						<th scope="col" class="extra">Example</th>
					</tr>
				</thead>
				<tbody>
					{of.map(g => (
						<tr key={reasonOf(g)}>
							<td class="text">
								<a data-row href={entriesLink(queryOf(g))}>
									{reasonOf(g) || 'not given'}
								</a>
								<div class="second">{g.example.message}</div>
							</td>
							<td class="number">{count(g.entries)}</td>
							<td class="extra">
								<Time at={g.first_failed_at} />
							</td>
							<td class="extra">
								<Time at={g.last_failed_at} />
							</td>
							<td class="text extra">{g.example.message ?? '–'}</td>
							<td class="extra">
								<a href={entryLink(g.example.entry)}>{g.example.entry}</a>
							</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}

/** Entries without a reason cannot be selected by it: they are among all. */
const queryOf = ({ reason, sink }: Group): Record<string, string> =>
	reason ? { reason, ...(sink && { sink }) } : {}

const shown = 10

function Jobs({ of }: { of: JobSummary[] }) {
	return (
		<>
			<h2>Last jobs</h2>
			<div class="wide" role="region" tabIndex={0} aria-label="Last jobs">
				<table>
					<thead>
						<tr>
							<th scope="col">Started</th>
							<th scope="col">Job</th>
							<th scope="col">State</th>
							<th scope="col" class="number">Entries</th>
						</tr>
					</thead>
					<tbody>
						{of.slice(0, shown).map(j => (
							<tr key={j.job}>
								<td>
									<a data-row href={jobLink(j.job)}>
										<Time at={j.started_at} />
									</a>
								</td>
								<td class="word">
									{j.action}
									{j.dry_run && ', dry run'}
								</td>
								<td class={j.state === 'failed' ? 'bad word' : 'word'}>{j.state}</td>
								<td class="number">
									{count(j.done)} of {count(j.selected)}
								</td>
							</tr>
						))}
					</tbody>
				</table>
			</div>
		</>
	)
}
