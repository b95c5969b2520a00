import { useRef, useState } from 'preact/hooks'
import { type Failure, failureOf, remove } from './api'
import { Crumbs } from './deadletters'
import { DeadLettersShown, isEvent, type JobState, jobPath, type Outcome, Refusal, type Selection, useStart } from './dlq'
import { selectionOf } from './entries'
import { count, sentence, Time } from './format'
import { useLoad, usePoll } from './load'
import { Figure } from './parts'
import { deadLettersLink, entryLink, eventLink, type Route } from './route'

const pollEvery = 1000 // milliseconds

/** A job: its progress, and the result of each entry. That of a dry run offers to do what it shows. */
export function Job({ route }: { route: Route }) {
	const job = useLoad<JobState>(jobPath(route.file), pollEvery)
	const { data } = job
	usePoll(job, j => j.state === 'running')
	return (
		<>
			<Crumbs />
			<h1>{data ? `${verb[data.action]}${data.dry_run ? ', dry run' : ''}` : 'Job'}</h1>
			<DeadLettersShown of={job} missing="There is no such job">
				{j => (
					<>
						<Progress of={j} reload={job.reload} />
						<Counts of={j} />
						{j.dry_run && j.state === 'done' && <Confirm of={j} query={route.query} />}
						{j.results.length > 0 && <Results of={j} />}
						{j.more_results > 0 && (
							<p class="faint">{count(j.more_results)} more results are not kept: a job keeps the first 1,000.</p>
						)}
						{j.state !== 'running' && (
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

function Progress({ of, reload }: { of: JobState; reload: () => void }) {
	const [failure, setFailure] = useState<Failure>()
	const cancel = async () => {
		setFailure(undefined)
		try {
			await remove(jobPath(of.job))
		} catch (error) {
			setFailure(failureOf(error))
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
				{of.state === 'running' && (
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
	const entries = `${count(done)} of ${count(selected)} entries`
	switch (state) {
		case 'running':
			return selected === 0 ? 'Running: the dead letters are being read' : `Running: ${entries}`
		case 'done':
			return `Done: ${entries}`
		case 'canceled':
			return `Canceled after ${entries}`
		default:
			return `Failed after ${entries}`
	}
}

const resultNames: Record<Outcome['result'], string> = {
	failed: 'failed',
	skipped: 'skipped',
	would_replay: 'would be replayed',
	would_drop: 'would be dropped',
	replayed: 'replayed',
	dropped: 'dropped',
}

function Counts({ of }: { of: JobState }) {
	return (
		<dl class="figures">
			{Object.entries(resultNames).map(([result, name]) => {
				const n = of.results.filter(r => r.result === result).length
				if (n === 0) return null
				return (
					<Figure key={result} name={name} bad={result === 'failed'}>
						{count(n)}
						{of.more_results > 0 && ' or more'}
					</Figure>
				)
			})}
			<Figure name="Started">
				<Time at={of.started_at} />
			</Figure>
		</dl>
	)
}

/** Asks once more, and does what the dry run has shown: with its entries, if it has kept them all. */
function Confirm({ of, query }: { of: JobState; query: URLSearchParams }) {
	const dialog = useRef<HTMLDialogElement>(null)
	const { busy, failure, start } = useStart()
	const entries = of.results.filter(r => r.result === 'would_replay' || r.result === 'would_drop').map(r => r.entry)
	const all = of.more_results === 0
	if (entries.length === 0) return <p class="state">There is nothing to {of.action}.</p>
	if (!all && !query.has('each')) {
		return (
			<p class="state">
				More entries were selected than a job keeps results of. To {of.action} them, repeat the dry run.
			</p>
		)
	}
	const selection: Selection = all ? { entries } : selectionOf(query)
	const what = all ? `${count(entries.length)} ${entries.length === 1 ? 'entry' : 'entries'}` : 'all of them'
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
				{!all && <p>Those that have become dead letters since the dry run are included.</p>}
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

const order = Object.keys(resultNames)

function Results({ of }: { of: JobState }) {
	const rows = of.results.toSorted((a, b) => order.indexOf(a.result) - order.indexOf(b.result))
	const sent = rows.some(r => r.replayed_to)
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Results">
			<table>
				<thead>
					<tr>
						<th scope="col">Entry</th>
						<th scope="col">Result</th>
						{sent && <th scope="col">New position</th>}
						<th scope="col">Why</th>
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
							<td class={r.result === 'failed' ? 'bad word' : 'word'}>{resultNames[r.result] ?? r.result}</td>
							{sent && (
								<td>
									<To of={r} />
								</td>
							)}
							<td class={r.detail && 'text'}>{r.detail ? sentence(r.detail) : '–'}</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}

function To({ of: { replayed_to, workspace_id } }: { of: Outcome }) {
	if (!replayed_to) return <>–</>
	if (!workspace_id || !isEvent(replayed_to)) return <>{replayed_to}</>
	return <a href={eventLink(workspace_id, replayed_to)}>{replayed_to}</a>
}
