// One event: what was received, its position in the log, its fold, and what each sink did with it.
import type { ComponentChildren } from 'preact'
import { type File, workspacePath } from './api'
import { sentence, shellWord, Time, valueOf } from './format'
import { indented, member } from './json'
import { useLoad, useSlowingPoll } from './load'
import { Command, Crumbs, Fields, inWorkspace, Shown } from './parts'
import { entryLink, eventLink, fileLink, type Route } from './route'

type Verdict =
	| 'accepted'
	| 'late'
	| 'duplicate'
	| 'passed'
	| 'unchanged'
	| 'dead_lettered'
	| 'pending'
	| 'no_trace'

type Result = 'delivered' | 'pending' | 'rejected' | 'not_applicable' | 'unknown'

interface Sink {
	sink: string
	channel?: string // the rule
	result: Result
	detail?: string
	at?: string
	dead_letter?: string
}

interface Trace {
	position: string
	workspace_id: string
	event_id?: string
	event?: string
	sent_event?: string
	file_id?: string
	sent_at: string | null
	received_at: string
	payload?: string // its JSON as it is written
	verdict: Verdict
	reason?: string
	detail?: string
	unreadable?: string[]
	version?: number
	op_id?: string
	duplicate_of?: string
	replay_of?: string
	cause?: { event?: string; event_id?: string; folder_id?: string; position: string }
	dead_letter?: string
	before?: File | null
	after?: File
	changed?: Record<string, { from: unknown; to: unknown }>
	sinks: Sink[]
}

const patience = 25_000 // milliseconds: the server reads topics for at most 20 s

const parse = (json: string): Trace => ({ ...JSON.parse(json), payload: member(json, 'payload') })

export function Event({ route }: { route: Route }) {
	const { workspace, id: position } = route
	const path = `${workspacePath(workspace)}/events/${encodeURIComponent(position)}`
	const found = useLoad(path, { timeout: patience, parse })
	const { data } = found
	const { stopped, again } = useSlowingPoll(found, isPending)
	const place = inWorkspace(workspace)
	if (data?.file_id) place.push([fileLink(workspace, data.file_id), data.after?.name ?? data.file_id])
	return (
		<>
			<Crumbs of={place} />
			<h1>Event {position}</h1>
			<Shown of={found} missing="There is no such event">
				{trace => (
					<>
						<ol class="hops">
							<Received of={trace} />
							<Log of={trace} />
							<Fold of={trace} />
							{trace.sinks.map(s => (
								<SinkHop key={`${s.sink} ${s.channel}`} of={s} />
							))}
							{trace.sinks.length === 0 && (
								<Hop name="Sinks" mark="none">
									<p>No sink has read anything of this installation.</p>
								</Hop>
							)}
						</ol>
						{isPending(trace) && !stopped && (
							<p class="faint">Something is pending: the page asks again, after 2 s to 30 s.</p>
						)}
						{isPending(trace) && stopped && (
							<p>
								Something is pending still, after 5 minutes.{' '}
								<button type="button" class="small" onClick={again}>
									Look again
								</button>
							</p>
						)}
						{trace.file_id && (
							<Command>{`tidemark why ${shellWord(workspace)} ${shellWord(trace.file_id)}`}</Command>
						)}
					</>
				)}
			</Shown>
		</>
	)
}

const isPending = (t: Trace) => t.verdict === 'pending' || t.sinks.some(s => s.result === 'pending')

type Tone = 'good' | 'bad' | 'wait' | ''

function Hop(props: { name: string; mark: string; tone?: Tone; children: ComponentChildren }) {
	return (
		<li>
			<h2>
				{props.name} <span class={`mark ${props.tone ?? ''}`}>{props.mark}</span>
			</h2>
			{props.children}
		</li>
	)
}

function Received({ of }: { of: Trace }) {
	return (
		<Hop name="Event" mark="received" tone="good">
			<Fields
				of={[
					['Event', of.event],
					['Sent as', of.sent_event],
					['Event id', of.event_id],
					['Sent', of.sent_at ? <Time key="sent" at={of.sent_at} /> : 'the event has no time that can be read'],
					['Received', <Time key="received" at={of.received_at} />],
					['Not readable', of.unreadable?.join(', ')],
				]}
			/>
			{of.payload === undefined ? (
				<p>The value is not an event. Who may see dead letters sees it there.</p>
			) : (
				<details>
					<summary>Payload</summary>
					<pre class="record" tabIndex={0} aria-label="Payload">
						{indented(of.payload)}
					</pre>
				</details>
			)}
		</Hop>
	)
}

function Log({ of }: { of: Trace }) {
	const [partition, offset] = of.position.split(':')
	return (
		<Hop name="Log" mark="stored" tone="good">
			<p>
				The event is in the events topic, partition {partition}, offset {offset}.
			</p>
			{of.replay_of && <Replay of={of} from={of.replay_of} />}
			{of.cause && (
				<p>
					It follows from {of.cause.event ?? 'an event'}
					{of.cause.folder_id && (
						<>
							{' of folder '}
							<a href={fileLink(of.workspace_id, of.cause.folder_id)}>{of.cause.folder_id}</a>
						</>
					)}
					, at <a href={eventLink(of.workspace_id, of.cause.position)}>{of.cause.position}</a>.
				</p>
			)}
		</Hop>
	)
}

/** Says where a replayed event was before: as a dead letter, or as an earlier event. */
function Replay({ of, from }: { of: Trace; from: string }) {
	const entry = from.startsWith('dlq ') ? from.slice(4) : ''
	return (
		<p>
			It was replayed from{' '}
			{entry ? (
				<>
					the dead letter <a href={entryLink(entry)}>{entry}</a>
				</>
			) : (
				<a href={eventLink(of.workspace_id, from)}>{from}</a>
			)}
			.
		</p>
	)
}

const verdicts: Record<Verdict, [mark: string, tone: Tone, meaning: string]> = {
	accepted: ['accepted', 'good', 'It was folded into the state of the file.'],
	late: ['late', 'good', 'It was folded.'], // the detail says what was kept
	duplicate: ['duplicate', '', 'An event with the same id was accepted before, so this one has no effect.'],
	passed: ['passed', 'good', 'It changes the state of no file, and is a notice for sinks.'],
	unchanged: ['unchanged', '', 'It was folded, and changed nothing that clients see. The file has no new version.'],
	dead_lettered: ['dead letter', 'bad', 'It could not be folded. It is kept unchanged, as a dead letter.'],
	pending: ['pending', 'wait', 'The files processor has not committed past this position yet.'],
	no_trace: ['no trace', 'bad', 'It was processed, and no notice, dead letter or earlier copy was found.'],
}

function Fold({ of }: { of: Trace }) {
	const [mark, tone, meaning] = verdicts[of.verdict] ?? [of.verdict, '', '']
	return (
		<Hop name="Fold" mark={mark} tone={tone}>
			<p>
				{of.verdict === 'passed' && !of.file_id && 'It names no file. '}
				{meaning}
				{of.verdict !== 'passed' && of.detail && ` ${sentence(of.detail)}`}
			</p>
			<Fields
				of={[
					['Reason', of.reason],
					['First copy', linked(of.duplicate_of, position => eventLink(of.workspace_id, position))],
					['Dead letter', linked(of.dead_letter, entryLink)],
					['File', linked(of.file_id, id => fileLink(of.workspace_id, id), of.after?.path)],
					['Version', of.version],
					['Operation id', of.op_id],
				]}
			/>
			{of.after && <Diff of={of} />}
		</Hop>
	)
}

const linked = (id: string | undefined, link: (id: string) => string, text = id) =>
	id && <a href={link(id)}>{text}</a>

function Diff({ of }: { of: Trace }) {
	const changed = Object.entries(of.changed ?? {})
	return (
		<>
			{of.before === null && <p>The event created the file: there was nothing before it.</p>}
			{changed.length === 0 && <p>None of the fields of the file has changed.</p>}
			{changed.length > 0 && (
				<div class="wide" role="region" tabIndex={0} aria-label="Changed fields">
					<table class="diff">
						<thead>
							<tr>
								<th scope="col">Field</th>
								<th scope="col">Before</th>
								<th scope="col">After</th>
							</tr>
						</thead>
						<tbody>
							{changed.map(([name, { from, to }]) => (
								<tr key={name}>
									<th scope="row">{name}</th>
									<td class="from">{valueOf(from)}</td>
									<td class="to">{valueOf(to)}</td>
								</tr>
							))}
						</tbody>
					</table>
				</div>
			)}
			<details>
				<summary>State after it{of.before && ', and before'}</summary>
				{of.before && <State name="Before" of={of.before} />}
				<State name="After" of={of.after} />
			</details>
		</>
	)
}

function State({ name, of }: { name: string; of?: File }) {
	return (
		<>
			<h3>{name}</h3>
			<pre class="record" tabIndex={0} aria-label={name}>
				{JSON.stringify(of, null, 2)}
			</pre>
		</>
	)
}

const results: Record<Result, [mark: string, tone: Tone]> = {
	delivered: ['delivered', 'good'],
	pending: ['pending', 'wait'],
	rejected: ['rejected', 'bad'],
	not_applicable: ['nothing to deliver', ''],
	unknown: ['not known', ''],
}

function SinkHop({ of }: { of: Sink }) {
	const [mark, tone] = results[of.result] ?? [of.result, '']
	return (
		<Hop name={`Sink ${of.sink}${of.channel ? `, ${of.channel}` : ''}`} mark={mark} tone={tone}>
			{of.detail && <p>{sentence(of.detail)}</p>}
			{(of.at || of.dead_letter) && (
				<Fields
					of={[
						['At', of.at && <Time at={of.at} />],
						['Dead letter', linked(of.dead_letter, entryLink)],
					]}
				/>
			)}
		</Hop>
	)
}
