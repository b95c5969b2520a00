import type { ComponentChildren } from 'preact'
import {
	DeadLettersShown,
	DryRun,
	type Entry as Letter,
	entryPath,
	isPosition,
	Place,
	PositionOf,
	Resolved,
} from './deadletters'
import { count, textOf, Time } from './format'
import { indented, member } from './json'
import { useLoad } from './load'
import { Fields } from './parts'
import { type Route, workspaceLink } from './route'

/** The record of a dead letter. What is not UTF-8 is in the fields named base64, also a value that is not JSON. */
interface Stored {
	topic: string
	partition: number
	offset: number
	timestamp: string
	key: string | null
	key_base64?: string
	headers: Record<string, string>
	headers_base64?: Record<string, string>
	value?: string // its JSON as it is written
	value_base64?: string
}

interface Found {
	entry: Letter
	record: Stored
}

function parse(json: string): Found {
	const found = JSON.parse(json) as Found
	found.record.value = member(member(json, 'record') ?? '', 'value')
	return found
}

/** One dead letter, with its record. */
export function Entry({ route }: { route: Route }) {
	const id = route.id
	const found = useLoad(entryPath(id), { parse })
	return (
		<>
			<Place />
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
		r.key_base64 === undefined ? ['Key', r.key === '' ? 'empty' : (r.key ?? 'none')] : ['Key, base64', r.key_base64],
	]
}

/** The event of an entry: of a sink's entry it is the one by which its record was written. */
function EventOf({ of, record }: { of: Letter; record: Stored }) {
	const written = of.sink && record.value && member(record.value, 'position')
	const position = isPosition(of.entry) ? of.entry : written && String(JSON.parse(written))
	if (!position || !of.workspace_id || !isPosition(position)) return <>not known</>
	return <PositionOf position={position} workspace={of.workspace_id} />
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
	return (
		<>
			{of.value === undefined && <p class="faint">The value is not JSON. Bytes that are not UTF-8 are shown as �.</p>}
			<pre class="record" tabIndex={0} aria-label="Value">
				{of.value === undefined ? textOf(of.value_base64 ?? '') : indented(of.value)}
			</pre>
		</>
	)
}

function Headers({ of }: { of: Stored }) {
	const binary = Object.entries(of.headers_base64 ?? {}).map(([name, value]) => [`${name}, base64`, value] as const)
	const all = [...Object.entries(of.headers), ...binary].sort(([a], [b]) => (a < b ? -1 : 1))
	if (all.length === 0) return <p class="faint">The record has none.</p>
	return <Fields of={all.map(([name, value]) => [name, value || 'empty'])} />
}
