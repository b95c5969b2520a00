import type { ComponentChildren } from 'preact'
import { Crumbs } from './deadletters'
import { DeadLettersShown, DryRun, type Entry as Letter, entryPath, isEvent } from './dlq'
import { count, textOf, Time } from './format'
import { useLoad } from './load'
import { Fields } from './parts'
import { eventLink, type Route, workspaceLink } from './route'

/** The record of a dead letter. What is not JSON, or not UTF-8, is in the fields named base64. */
interface Stored {
	topic: string
	partition: number
	offset: number
	timestamp: string
	key: string | null
	key_base64?: string
	headers: Record<string, string>
	headers_base64?: Record<string, string>
	value?: unknown
	value_base64?: string
}

/** One dead letter, with its record. */
export function Entry({ route }: { route: Route }) {
	const id = route.file
	const found = useLoad<{ entry: Letter; record: Stored }>(entryPath(id))
	return (
		<>
			<Crumbs />
			<h1>Dead letter {id}</h1>
			<DeadLettersShown of={found} missing="There is no such dead letter">
				{({ entry, record }) => (
					<>
						{!entry.resolved && <DryRun selection={{ entries: [entry.entry] }} entries="this entry" />}
						<Fields of={fields(entry, record)} />
						<h2>Record</h2>
						<Value of={record} entry={entry} />
						<h2>Headers</h2>
						<Headers of={record} />
					</>
				)}
			</DeadLettersShown>
		</>
	)
}

function fields(e: Letter, r: Stored): [string, ComponentChildren][] {
	const failed = (
		<>
			{count(e.times)} {e.times === 1 ? 'time' : 'times'}, first <Time at={e.first_failed_at} />, last{' '}
			<Time at={e.last_failed_at} />
		</>
	)
	return [
		['Reason', e.reason || 'not given'],
		['What to fix', e.message],
		['Sink', e.sink],
		['Answer', e.answer],
		['Resolved', e.resolved && <Resolved of={e} />],
		['Workspace', e.workspace_id && <a href={workspaceLink(e.workspace_id)}>{e.workspace_id}</a>],
		['Event', <EventOf key="event" of={e} record={r} />],
		['Event id', e.event_id],
		['Failed', failed],
		['Stored at', `${e.dlq_position} in ${r.topic}`],
		['Key', r.key ?? r.key_base64],
	]
}

function Resolved({ of }: { of: Letter }) {
	const to = of.replayed_to
	return (
		<>
			{of.resolved}
			{to && ' to '}
			{to && (isEvent(to) && of.workspace_id ? <a href={eventLink(of.workspace_id, to)}>{to}</a> : to)}
		</>
	)
}

/** The event of an entry: of a sink's entry it is the one by which its record was written. */
function EventOf({ of, record }: { of: Letter; record: Stored }) {
	const written = (record.value as { position?: unknown } | undefined)?.position
	const position = isEvent(of.entry) ? of.entry : of.sink && typeof written === 'string' ? written : ''
	if (!of.workspace_id || !isEvent(position)) return <>not known</>
	return <a href={eventLink(of.workspace_id, position)}>{position}</a>
}

function Value({ of, entry }: { of: Stored; entry: Letter }) {
	if (entry.value_omitted) {
		return (
			<p class="state">
				The value of {count(entry.value_omitted)} bytes was too large to keep. The source record is at its position until
				retention removes it.
			</p>
		)
	}
	const binary = of.value_base64 !== undefined
	return (
		<>
			{binary && <p class="faint">The value is not JSON. Bytes that are not UTF-8 are shown as �.</p>}
			<pre class="record" tabIndex={0} aria-label="Value">
				{binary ? textOf(of.value_base64 ?? '') : JSON.stringify(of.value, null, 2)}
			</pre>
		</>
	)
}

function Headers({ of }: { of: Stored }) {
	const all = Object.entries({ ...of.headers, ...of.headers_base64 }).sort(([a], [b]) => (a < b ? -1 : 1))
	if (all.length === 0) return <p class="faint">The record has none.</p>
	return <Fields of={all} />
}
