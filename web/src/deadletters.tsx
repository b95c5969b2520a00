// Dead letters in the query API: shapes and paths, and what their views share.
import { useEffect, useRef, useState } from 'preact/hooks'
import { type Failure, post } from './api'
import { refused } from './connection'
import { sentence } from './format'
import { Command, Crumbs, Shown, type Showing } from './parts'
import { deadLettersLink, eventLink, jobLink } from './route'

/** An entry is a source record that was dead-lettered, and the sink that rejected it if one did. */
export interface Entry {
	entry: string
	reason: string
	message?: string
	sink?: string
	answer?: string
	workspace_id?: string
	event_id?: string
	first_failed_at: string
	last_failed_at: string
	times: number
	dlq_position: string
	resolved?: string
	replayed_to?: string
	value_omitted?: number
}

export interface Group {
	reason: string
	sink?: string
	entries: number
	records: number
	first_failed_at: string
	last_failed_at: string
	example: Entry
}

export interface Summary {
	entries: number
	reasons: Group[]
}

export interface EntryPage {
	entries: Entry[]
	next_cursor: string | null
	total: number
}

export interface Outcome {
	entry: string
	result: 'would_replay' | 'replayed' | 'would_drop' | 'dropped' | 'skipped' | 'failed'
	detail?: string
	replayed_to?: string
	workspace_id?: string
}

export type Action = 'replay' | 'drop'

export interface JobSummary {
	job: string
	action: Action
	dry_run: boolean
	state: 'running' | 'done' | 'failed' | 'canceled'
	error?: string
	selected: number
	done: number
	started_at: string
	ended_at?: string
}

export interface JobState extends JobSummary {
	selection: Selection
	counts: Partial<Record<Outcome['result'], number>>
	results: Outcome[]
	more_results: number
}

export const path = 'v1/dlq'
export const jobsPath = `${path}/jobs`
export const entryPath = (entry: string) => `${path}/${encodeURIComponent(entry)}`
export const jobPath = (job: string) => `${jobsPath}/${encodeURIComponent(job)}`

export const reasonOf = (e: { reason: string; sink?: string }) => e.reason + (e.sink ? ` (${e.sink})` : '')

/** Whether it is a position in the events topic: entries of sinks are in other topics, and name them. */
export const isPosition = (position: string) => /^\d+:\d+$/.test(position)

/** A position, as a link to its event if there is one. */
export function PositionOf({ position, workspace }: { position: string; workspace?: string }) {
	if (!workspace || !isPosition(position)) return <>{position}</>
	return <a href={eventLink(workspace, position)}>{position}</a>
}

/** What became of an entry. */
export function Resolved({ of }: { of: Entry }) {
	return (
		<>
			{of.resolved ?? 'open'}
			{of.replayed_to && (
				<>
					{' to '}
					<PositionOf position={of.replayed_to} workspace={of.workspace_id} />
				</>
			)}
		</>
	)
}

export const Place = () => <Crumbs of={[[deadLettersLink, 'Dead letters']]} />

/** What a view of dead letters shows: also why this server or token has none. */
export function DeadLettersShown<T>(props: Showing<T>) {
	switch (props.of.failure?.status) {
		case 403:
			return (
				<div class="state">
					<h2>Not allowed with this token</h2>
					<p>
						Dead letters are those of all workspaces. They need a token with the right <code>admin</code> for all
						workspaces, which is made by:
					</p>
					<Command>tidemark token hash --name operator --workspace '*' --right read,admin</Command>
				</div>
			)
		case 501:
			return (
				<div class="state">
					<h2>This server does not show dead letters</h2>
					<p>To see and replay them here, start it with:</p>
					<Command>tidemark serve --dead-letters</Command>
					<p>Without it, these commands list and replay them:</p>
					<Command>tidemark dlq list</Command> <Command>tidemark dlq replay</Command>
				</div>
			)
		default:
			return <Shown {...props} />
	}
}

/** Which entries a job is for: the names are those of the API. */
export interface Selection {
	reasons?: string[]
	sinks?: string[]
	entries?: string[]
	workspace_id?: string
	event_id?: string
	since?: string
}

/** Starts jobs, one at a time, and leads to the view of the job. */
export function useStart() {
	const [busy, setBusy] = useState(false)
	const [failure, setFailure] = useState<Failure>()
	const shown = useRef(true)
	useEffect(() => () => void (shown.current = false), [])
	const start = async (action: Action, dryRun: boolean, selection: Selection) => {
		setBusy(true)
		setFailure(undefined)
		try {
			const started = await post<JobState>(jobsPath, { action, dry_run: dryRun, ...selection })
			if (shown.current) location.hash = jobLink(started.job)
		} catch (error) {
			setFailure(refused(error))
		}
		setBusy(false)
	}
	return { busy, failure, start }
}

export function Refusal({ of }: { of?: Failure }) {
	return (
		<p class="refusal" role="alert">
			{of && sentence(of.detail)}
		</p>
	)
}

/** Starts a dry run. Only its view offers to do what it shows. */
export function DryRun(props: { selection: Selection; entries: string }) {
	const { busy, failure, start } = useStart()
	const [action, setAction] = useState<Action>('replay')
	return (
		<>
			<form
				class="bar"
				onSubmit={event => {
					event.preventDefault()
					void start(action, true, props.selection)
				}}
			>
				<label>
					Action
					<select value={action} onChange={event => setAction(event.currentTarget.value as Action)}>
						<option value="replay">replay</option>
						<option value="drop">drop</option>
					</select>
				</label>
				<button type="submit" disabled={busy}>
					Dry run of {props.entries}
				</button>
				<span class="faint">A dry run changes nothing: it shows what would be done with each entry.</span>
			</form>
			<Refusal of={failure} />
		</>
	)
}
