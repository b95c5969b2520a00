import type { Partition, Status } from './api'
import { connection, isSilence, lagOf } from './connection'
import { path, type Summary } from './deadletters'
import { count, duration } from './format'
import { useLoad, useReloadOn } from './load'
import { Command, Figure, Shown } from './parts'
import { Groups } from './reasons'
import { deadLettersLink } from './route'
import { useStore } from './store'
import { Bar } from './usage'

/** The lag at which a figure is red, in seconds. */
export const late = 10

export function Health() {
	const { status, unknown } = useStore(connection)
	return (
		<>
			<h1>Health</h1>
			<Shown of={{ data: status, failure: unknown, retry: () => location.reload(), reload: () => {} }}>
				{of => <Figures status={of} />}
			</Shown>
		</>
	)
}

function Figures({ status }: { status: Status }) {
	const records = status.partitions.reduce((sum, p) => sum + p.lag_records, 0)
	const lag = lagOf(status)
	const dead = status.dead_lettered ?? 0
	const behind = lag > late
	return (
		<>
			<dl class="figures">
				<Figure name="Ready" bad={!status.ready}>
					{status.ready ? 'yes' : 'no'}
				</Figure>
				<Figure name="Lag, records" bad={behind}>
					{count(records)}
				</Figure>
				<Figure name="Lag, time" bad={behind}>
					{duration(lag)}
				</Figure>
				<Figure name="Dead letters" bad={dead > 0}>
					<a href={deadLettersLink}>{status.dead_lettered === undefined ? 'not counted yet' : count(dead)}</a>
				</Figure>
				<Figure name="Duplicates dropped">
					{status.duplicates === undefined ? 'counted by tidemark process' : count(status.duplicates)}
				</Figure>
			</dl>
			{!status.ready && (
				<Explained command="tidemark doctor">Not ready: {status.reason ?? 'the server does not say why'}.</Explained>
			)}
			{status.ready && behind && (
				<Explained command="tidemark doctor">
					{isSilence(status)
						? `The brokers have not answered for ${duration(lag)}: what has come since is not known.`
						: `Events are stored and not processed yet, the oldest for ${duration(lag)}.`}
				</Explained>
			)}
			{dead > 0 && (
				<Explained command="tidemark dlq list">
					{count(dead)} records could not be folded, or a sink's destination rejected them. They are kept unchanged:{' '}
					<a href={deadLettersLink}>dead letters</a>.
				</Explained>
			)}
			{dead > 0 && <Causes dead={dead} />}
			<h2>Partitions</h2>
			<Partitions all={status.partitions} />
		</>
	)
}

/** The dead letters by reason. Where this server or token has none, the link to them says why. */
function Causes({ dead }: { dead: number }) {
	const { data, reload } = useLoad<Summary>(path)
	useReloadOn(dead, reload)
	if (!data || data.entries === 0) return null
	return (
		<>
			<h2>Dead letters by reason</h2>
			<Groups of={data.reasons} />
		</>
	)
}

function Explained(props: { command: string; children: preact.ComponentChildren }) {
	return (
		<div class="state problem">
			<p>{props.children}</p>
			<Command>{props.command}</Command>
		</div>
	)
}

function Partitions({ all }: { all: Partition[] }) {
	const longest = Math.max(late, ...all.map(p => p.lag_seconds))
	return (
		<div class="wide" role="region" tabIndex={0} aria-label="Partitions">
			<table>
				<thead>
					<tr>
						<th scope="col">Partition</th>
						<th scope="col">Position</th>
						<th scope="col" class="number">Lag, records</th>
						<th scope="col" class="plotted">Lag, time</th>
						<th scope="col">Ready</th>
					</tr>
				</thead>
				<tbody>
					{all.map(p => (
						<tr key={p.partition}>
							<td>{p.partition}</td>
							<td>{p.position ?? '–'}</td>
							<td class={p.lag_seconds > late ? 'number bad' : 'number'}>{count(p.lag_records)}</td>
							<td class={p.lag_seconds > late ? 'bad' : ''}>
								<Bar part={p.lag_seconds} of={longest}>
									{duration(p.lag_seconds)}
								</Bar>
							</td>
							<td class={p.ready ? '' : 'bad'}>{p.ready ? 'yes' : 'no'}</td>
						</tr>
					))}
				</tbody>
			</table>
		</div>
	)
}
