// What a workspace has, by type, folder and actor, and what happened in it in the last 7 days.
import type { ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import { type Ranked, type Total, type Usage as Answer, usagePath, type Workspace } from './api'
import { bytes, count, sentence } from './format'
import { type Loaded, useLoad } from './load'
import { Command } from './parts'
import { Activity } from './plot'
import { workspaceLink } from './route'

const reloadEvery = 10_000 // milliseconds: the server reads all files of the workspace for an answer

export const useUsage = (workspace: string) => useLoad<Answer>(usagePath(workspace), { every: reloadEvery })

const dimensions = ['type', 'folder', 'actor'] as const
type Dimension = (typeof dimensions)[number]

export function Usage({ of, state }: { of: Loaded<Answer>; state: Workspace }) {
	const { data, failure } = of
	if (data && (!failure || failure.temporary)) {
		return (
			<div class="usage">
				<section aria-labelledby="usage">
					<Totals of={data.totals.by} workspace={state.workspace_id} />
				</section>
				<section aria-labelledby="activity">
					<h2 id="activity">File changes per hour, last 7 days</h2>
					<Activity of={data.activity} />
				</section>
			</div>
		)
	}
	if (!failure) {
		return (
			<p class="state usage" role="status">
				Loading usage…
			</p>
		)
	}
	return (
		<>
			<h2>Files by type</h2>
			<Bars rows={byType(state)} dimension="type" workspace={state.workspace_id} noSize />
			<div class="state">
				{failure.code === 'history_not_configured' ? (
					<>
						<p>
							This server keeps no history, so there is no usage by folder and actor, and no activity. It keeps 7 days if it
							is started without <code>--history 0</code>, or with:
						</p>
						<Command>tidemark serve --history 168h</Command>
					</>
				) : (
					<p>Usage cannot be shown. {sentence(failure.detail)}</p>
				)}
			</div>
		</>
	)
}

function Totals({ of, workspace }: { of: Record<string, Ranked<Total>>; workspace: string }) {
	const [by, setBy] = useState<Dimension>('type')
	const { keys, other } = of[by] ?? { keys: [] }
	const rows: Row[] = keys.map(({ key, total }) => ({ name: key, total }))
	return (
		<>
			<div class="heading">
				<h2 id="usage">Usage by</h2>
				<div class="choice" role="group" aria-labelledby="usage">
					{dimensions.map(name => (
						<button key={name} type="button" class="small" aria-pressed={by === name} onClick={() => setBy(name)}>
							{name}
						</button>
					))}
				</div>
			</div>
			<Bars rows={rows} rest={other} dimension={by} workspace={workspace} />
		</>
	)
}

interface Row {
	name: string | null // null: not known
	total: Total
}

const shown = 6

interface Shape {
	rows: Row[]
	rest?: Total // of what is not in rows
	dimension: Dimension
	workspace: string
	noSize?: boolean
}

function Bars({ rows, rest, dimension, workspace, noSize }: Shape) {
	if (rows.length === 0) return <p class="faint">There is no active file.</p>
	const head = rows.slice(0, shown)
	const tail = rows.slice(shown).map(row => row.total)
	if (rest) tail.push(rest)
	const others = tail.reduce(add, { files: 0, bytes: '0' })
	const all = head.map(row => row.total).reduce(add, others)
	return (
		<table class="bars">
			<thead>
				<tr>
					<th scope="col">{dimension}</th>
					<th scope="col">Files</th>
					{!noSize && <th scope="col">Size</th>}
				</tr>
			</thead>
			<tbody>
				{head.map(({ name, total }) => (
					<tr key={name}>
						<th scope="row" title={name ?? undefined}>
							{name === null ? (
								'not known'
							) : dimension === 'folder' ? (
								<a href={workspaceLink(workspace, { prefix: name === '/' ? '' : `${name}/` })}>{name}</a>
							) : (
								name
							)}
						</th>
						<Cells of={total} {...{ all, noSize }} />
					</tr>
				))}
				{tail.length > 0 && (
					<tr>
						<th scope="row">all others</th>
						<Cells of={others} {...{ all, noSize }} />
					</tr>
				)}
			</tbody>
		</table>
	)
}

function Cells({ of, all, noSize }: { of: Total; all: Total; noSize?: boolean }) {
	return (
		<>
			<td>
				<Bar part={of.files} of={all.files}>
					{count(of.files)}
				</Bar>
			</td>
			{!noSize && (
				<td>
					<Bar part={Number(of.bytes)} of={Number(all.bytes)}>
						{bytes(of.bytes)}
					</Bar>
				</td>
			)}
		</>
	)
}

/** A number, and a bar that is its part of another one. */
export function Bar(props: { part: number; of: number; children: ComponentChildren }) {
	return (
		<div class="barred">
			<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
				<rect width={(100 * props.part) / Math.max(1, props.of)} height="8" />
			</svg>
			<span>{props.children}</span>
		</div>
	)
}

const add = (a: Total, b: Total): Total => ({
	files: a.files + b.files,
	bytes: `${BigInt(a.bytes) + BigInt(b.bytes)}`,
})

/** The types of a workspace's own counts, without their sizes. */
const byType = (state: Workspace): Row[] =>
	Object.entries(state.by_type ?? {})
		.sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
		.map(([name, files]) => ({ name, total: { files, bytes: '0' } }))
