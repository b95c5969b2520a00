import { useEffect, useRef, useState } from 'preact/hooks'
import type { Change } from './api'
import { useFeed } from './feed'
import { clock, count, eventName } from './format'
import { Crumbs, FeedMark, Figure, inWorkspace } from './parts'
import { eventLink, fileLink, type Route } from './route'
import { Window } from './window'

const drawEvery = 250 // milliseconds

export function Live({ route }: { route: Route }) {
	const { workspace } = route
	const [changes] = useState(() => new Window())
	const [view, setView] = useState(changes.draw())
	const [paused, setPaused] = useState(false)
	const pausing = useRef(paused)
	pausing.current = paused
	const feed = useFeed(
		workspace,
		change => changes.add(change, Date.now()),
		() => {},
	)
	useEffect(() => {
		const timer = setInterval(() => {
			if (!pausing.current) setView(changes.draw())
		}, drawEvery)
		return () => clearInterval(timer)
	}, [changes])
	return (
		<>
			<Crumbs of={inWorkspace(workspace)} />
			<h1>
				Live changes <FeedMark state={feed} />
			</h1>
			<dl class="figures">
				<Figure name="Received">{count(view.received)}</Figure>
				<Figure name="Skipped, too fast to show">{count(view.skipped)}</Figure>
				<Figure name="Merged by the feed">{count(view.merged)}</Figure>
			</dl>
			<div class="bar">
				<button type="button" data-pause aria-pressed={paused} onClick={() => setPaused(!paused)}>
					{paused ? 'Continue' : 'Pause'}
				</button>
			</div>
			{view.rows.length === 0 ? (
				<p class="state">Nothing has changed since you opened this view. Changes appear here as they happen.</p>
			) : (
				<ol class="changes">
					{view.rows.map(row => (
						<li key={row.number}>
							<span class="faint">{clock(row.at)}</span> <Line workspace={workspace} change={row.change} />
						</li>
					))}
				</ol>
			)}
		</>
	)
}

function Line({ workspace, change }: { workspace: string; change: Change }) {
	const { file } = change
	const id = file?.file_id ?? change.file_id ?? ''
	const what = file?.last_event && eventName(file.last_event).replaceAll('_', ' ')
	return (
		<span>
			<a data-row href={fileLink(workspace, id)}>
				{file?.path ?? file?.name ?? id}
			</a>{' '}
			{what ?? (change.op === 'delete' ? 'erased' : 'changed')}{' '}
			<span class="faint">
				version {change.version}
				{change.position && (
					<>
						, event <a href={eventLink(workspace, change.position)}>{change.position}</a>
					</>
				)}
			</span>
		</span>
	)
}
