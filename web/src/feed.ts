// The changes of a workspace as they happen. A browser opens six connections to a host, for all its tabs, so a hidden
// tab closes its stream; once visible it continues from its cursor.
import { useEffect, useRef, useState } from 'preact/hooks'
import { type Change, Failure, get, workspacePath } from './api'
import { forgetFailure, note } from './connection'

export type FeedState = 'connecting' | 'live' | 'retrying'

interface Handlers {
	change: (change: Change) => void
	/** Changes may have been missed: what was loaded must be loaded again. */
	reset: () => void
	state: (state: FeedState) => void
}

const latest = 'latest'
const beginning = ''
const longestWait = 10 // seconds

export class Feed {
	private source?: EventSource
	private cursor = latest
	private timer = 0
	private failures = 0
	private stop = new AbortController()

	constructor(
		private workspace: string,
		private on: Handlers,
	) {
		document.addEventListener('visibilitychange', this.visible)
		this.visible()
	}

	close() {
		this.stop.abort()
		document.removeEventListener('visibilitychange', this.visible)
		this.disconnect()
		forgetFailure(this.name)
	}

	private get name() {
		return `changes of ${this.workspace}`
	}

	private path() {
		const asked = new URLSearchParams({ status: 'all', kind: 'all', cursor: this.cursor })
		return `${workspacePath(this.workspace)}/changes?${asked}`
	}

	private visible = () => {
		this.disconnect()
		if (!document.hidden) this.connect()
	}

	private disconnect() {
		clearTimeout(this.timer)
		this.source?.close()
		this.source = undefined
	}

	private connect() {
		this.disconnect()
		const source = new EventSource(this.path())
		this.source = source
		source.addEventListener('change', event => {
			this.arrived(event)
			this.on.change(JSON.parse(event.data) as Change)
		})
		source.addEventListener('heartbeat', event => this.arrived(event))
		source.addEventListener('expired', () => {
			this.cursor = latest
			this.connect()
		})
		source.onerror = () => void this.failed()
	}

	private arrived(event: MessageEvent) {
		const began = this.cursor === latest || this.cursor === beginning
		this.cursor = event.lastEventId
		if (began) this.on.reset() // the data was loaded before the first cursor
		this.failures = 0
		this.on.state('live')
		note(this.name)
	}

	// An EventSource does not show why it failed. A request for the same cursor does.
	private async failed() {
		this.disconnect()
		this.on.state('retrying')
		let wait = Math.min(2 ** this.failures++, longestWait)
		try {
			await get(`${this.path()}&limit=1`, this.stop)
		} catch (error) {
			if (!(error instanceof Failure) || this.stop.signal.aborted) return
			note(this.name, error)
			if (error.code === 'cursor_expired') this.cursor = latest
			else if (error.code === 'unknown_workspace') this.cursor = beginning // once it exists, all of it is new
			else if (!error.temporary) wait = longestWait
			wait = Math.max(wait, error.retryAfter)
		}
		if (!document.hidden && !this.stop.signal.aborted) {
			this.timer = setTimeout(() => this.connect(), 1000 * wait)
		}
	}
}

/** Follows the changes of a workspace while the view is shown. */
export function useFeed(workspace: string, change: (change: Change) => void, reset: () => void): FeedState {
	const [state, setState] = useState<FeedState>('connecting')
	const handlers = useRef({ change, reset })
	handlers.current = { change, reset }
	useEffect(() => {
		const feed = new Feed(workspace, {
			change: c => handlers.current.change(c),
			reset: () => handlers.current.reset(),
			state: setState,
		})
		return () => feed.close()
	}, [workspace])
	return state
}
