import { useRef, useState } from 'preact/hooks'
import { type Failure, remove } from './api'
import { refused } from './connection'
import {
	DeadLettersShown,
	type JobState,
	jobPath,
	type Outcome,
	Place,
	PositionOf,
	Refusal,
	useStart,
} from './deadletters'
import { count, entries, sentence, Time } from './format'
import { useLoad, usePoll } from './load'
import { Fields, Figure } from './parts'
import { deadLettersLink, entryLink, type Route } from './route'

const pollEvery = 1000 // milliseconds

/** A job: its progress, and the result of each entry. That of a dry run offers to do what it shows. */
export function Job({ route }: { route: Route }) {
	const job = useLoad<JobState>(jobPath(route.id), { every: pollEvery })
	const { data } = job
	const lost = data !== undefined && job.failure?.status === 404
	usePoll(job, j => j.state === 'running')
	return (
		<>
			<Place />
			<h1>{data ? `${verb[data.action]}${data.dry_run ? ', dry run' : ''}` : 'Job'}</h1>
			<DeadLettersShown of={job} missing={lost ? 'The server has restarted since' : 'There is no such job'} keep>
				{j => (
					<>
						{lost && j.state === 'running' && <p>This is what it had done when the server last answered:</p>}
						<Progress of={j} lost={lost} reload={job.reload} />
						<Counts of={j} />
						{j.dry_run && j.state === 'done' && <Confirm of={j} />}
						{j.results.length > 0 && <Results of={j} />}
						{j.more_results > 0 && (
							<p class="faint">{count(j.more_results)} more results are not kept: a job keeps the first 1,000.</p>
						)}
						{(j.state !== 'running' || lost) && (
							<p>
								<a href={deadLettersLink}>Dead letters that are left</a>
							</p>
						)}
					</>
				)}
			</DeadLettersShown>
		</>
	)
}

const verb = { replay: 'Replay', drop: 'Drop' }

function Progress({ of, lost, reload }: { of: JobState; lost: boolean; reload: () => void }) {
	const [failure, setFailure] = useState<Failure>()
	const cancel = async () => {
		setFailure(undefined)
		try {
			await remove(jobPath(of.job))
		} catch (error) {
			setFailure(refused(error))
		}
		reload()
	}
	return (
		<>
			<div class="bar">
				<label>
					<span role="status">{progress(of)}</span>
					<progress value={of.state === 'done' ? 1 : of.done} max={of.state === 'done' ? 1 : Math.max(1, of.selected)} />
				</label>
				{of.state === 'running' && !lost && (
					<button type="button" onClick={() => void cancel()}>
						Cancel
					</button>
				)}
			</div>
			<Refusal of={failure} />
			{of.error && (
				<div class="state problem" role="alert">
					<h2>The job has failed</h2>
					<p>{sentence(of.error)}</p>
					<p>Entries that were not resolved are still dead letters. To repeat the job is safe.</p>
				</div>
			)}
		</>
	)
}

function progress({ state, done, selected }: JobState): string {
	const some = `${count(done)} of ${entries(selected)}`
	switch (state) {
		case 'running':
			return selected === 0 ? 'Running: the dead letters are being read' : `Running: ${some}`
		case 'done':
			return `Done: ${some}`
		case 'canceled':
			return `Canceled after ${some}`
		default:
			return `Failed after ${some}`
	}
}

type Kind = Outcome['result']

const resultNames: Record<Kind, string> = {
	failed: 'failed',
	skipped: 'skipped',
	would_replay: 'would be replayed',
	would_drop: 'would be dropped',
	replayed: 'replayed',
	dropped: 'dropped',
}
const kinds = Object.keys(resultNames) as Kind[]

function Counts({ of }: { of: JobState }) {
	return (
		<dl class="figures">
			{kinds.map(kind => {
				const n = of.counts[kind]
				if (!n) return null
				return (
					<Figure key={kind} name={resultNames[kind]} bad={kind === 'failed'}>
						{count(n)}
					</Figure>
				)
			})}
			<Figure name="Started">
				<Time at={of.started_at} />
			</Figure>
		</dl>
	)
}

/**
 * Asks once more, and does what the dry run has shown: with its entries if it has the results of all, else with its
 * selection.
 */
function Confirm({ of }: { of: JobState }) {
	const dialog = useRef<HTMLDialogElement>(null)
	const { busy, failure, start } = useStart()
	const n = (of.counts.would_replay ?? 0) + (of.counts.would_drop ?? 0)
	if (n === 0) return <p class="state">There is nothing to {of.action}.</p>
	const all = of.more_results === 0
	const would = of.results.filter(r => r.result === 'would_replay' || r.result === 'would_drop')
	const selection = all ? { entries: would.map(r => r.entry) } : of.selection
	const what = entries(n)
	return (
		<>
			<p>
				<button type="button" class="main" disabled={busy} onClick={() => dialog.current?.showModal()}>
					{verb[of.action]} {what}
				</button>
			</p>
			<Refusal of={failure} />
			<dialog ref={dialog} aria-labelledby="confirm">
				<h2 id="confirm">
					{verb[of.action]} {what}?
				</h2>
				<p>
					{of.action === 'replay'
						? 'Their records are sent again, to the events topic or to the sink that rejected them.'
						: 'They will not be listed or replayed any more. Their records stay until retention removes them.'}
				</p>
				<Fields of={selected(of)} />
				{!all && (
					<p>
						The dry run has more results than are kept, so its selection is used again. What became a dead letter since
						then is included.
					</p>
				)}
				<form
					class="bar"
					onSubmit={event => {
						event.preventDefault()
						dialog.current?.close()
						void start(of.action, false, selection)
					}}
				>
					<button type="submit" class="main">
						{verb[of.action]} {what}
					</button>
					<button type="button" onClick={() => dialog.current?.close()}>
						Cancel
					</button>
				</form>
			</dialog>
		</>
	)
}

/** What a job was started for. */
function selected({ selection: s, selected }: JobState): [string, string | undefined][] {
	const fields: [string, string | undefined][] = [
		['Reason', s.reasons?.join(', ')],
		['Sink', s.sinks?.join(', ')],
		['Workspace', s.workspace_id],
		['Event id', s.event_id],
		['Since', s.since],
		['Entries', s.entries && `${count(s.entries.length)} by name`],
	]
	if (!fields.some(([, value]) => value)) fields.push(['Entries', 'all'])
	return [...fields, ['Selected', entries(selected)]]
}

function Results({ of }: { of: JobState }) {
	const rows = of.results.toSorted((a, b) => kinds.indexOf(a.result) - kinds.indexOf(b.result))
	const sent = rows.some(r => r.replayed_to)
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Results">
			<table>
				<thead>
					<tr>
						<th scope="col">Entry</th>
						<th scope="col">Result</th>
						{sent && <th scope="col">New position</th>}
						<th scope="col" class="extra">Why</th>
					</tr>
				</thead>
				<tbody>
					{rows.map((r, i) => (
						<tr key={`${r.entry} ${i}`} data-result={r.result}>
							<td>
								<a data-row href={entryLink(r.entry)}>
									{r.entry}
								</a>
							</td>
							<td>
								<span class={r.result === 'failed' ? 'bad' : ''}>{resultNames[r.result] ?? r.result}</span>
								{r.detail && <div class="second">{sentence(r.detail)}</div>}
							</td>
							{sent && (
								<td>
									{r.replayed_to ? <PositionOf position={r.replayed_to} workspace={r.workspace_id} /> : '–'}
								</td>
							)}
							<td class={`extra ${r.detail && 'text'}`}>{r.detail ? sentence(r.detail) : '–'}</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}
