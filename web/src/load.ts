import { useEffect, useRef, useState } from 'preact/hooks'
import { type Asked, type Failure, failureOf, get } from './api'
import { forgetFailure, note } from './connection'

export interface Loaded<T> {
	data?: T // the last answer for the path, kept while later requests fail
	failure?: Failure // of the last request
	/** Asks again soon: many calls are one request. The answer includes the event at the position, if one is given. */
	reload: (position?: string) => void
	retry: () => void // now
}

const retryAfter = 3 // seconds
const reloadEvery = 500 // milliseconds

export interface How<T> extends Asked<T> {
	every?: number // milliseconds, at least, between two requests
}

let marked = false

/** Requests a path of the API, again when reload is called, and again after a failure that is temporary. */
export function useLoad<T>(path: string, how: How<T> = {}): Loaded<T> {
	const [state, setState] = useState<{ path: string; data?: T; failure?: Failure }>({ path })
	const loader = useRef<Loader<T>>(null)
	useEffect(() => {
		const made = new Loader<T>(
			path,
			how,
			data => setState({ path, data }),
			failure => setState(before => ({ path, data: before.path === path ? before.data : undefined, failure })),
		)
		loader.current = made
		made.run()
		return () => made.stop()
	}, [path])
	const current = state.path === path ? state : { data: undefined, failure: undefined }
	useEffect(() => {
		if (current.data === undefined || marked) return
		performance.mark('data') // for tests
		marked = true
	}, [current.data])
	return {
		data: current.data,
		failure: current.failure,
		reload: position => loader.current?.reload(position),
		retry: () => loader.current?.run(),
	}
}

/** Asks again after each answer that wants it, unless the page is hidden. */
export function usePoll<T>({ data, reload }: Loaded<T>, wanted: (data: T) => boolean) {
	useEffect(() => {
		if (data === undefined || !wanted(data)) return
		const ask = () => {
			if (!document.hidden) reload()
		}
		ask()
		document.addEventListener('visibilitychange', ask)
		return () => document.removeEventListener('visibilitychange', ask)
	}, [data])
}

/** Asks again when the value has become another one. */
export function useReloadOn(value: unknown, reload: () => void) {
	const before = useRef(value)
	useEffect(() => {
		if (before.current !== undefined && before.current !== value) reload()
		before.current = value
	}, [value])
}

const firstPause = 2000 // milliseconds
const longestPause = 30_000
const pollFor = 300_000

/**
 * Asks again after each answer that wants it, as usePoll does, after pauses that become longer. It stops after 5
 * minutes: then stopped is true, and again begins with short pauses.
 */
export function useSlowingPoll<T>({ data, reload }: Loaded<T>, wanted: (data: T) => boolean) {
	const [stopped, setStopped] = useState(false)
	const began = useRef(Date.now())
	const pause = useRef(firstPause)
	useEffect(() => {
		if (data === undefined || !wanted(data)) return
		if (Date.now() - began.current > pollFor) {
			setStopped(true)
			return
		}
		let due = false
		const ask = () => {
			if (due && !document.hidden) reload()
		}
		const timer = setTimeout(() => {
			due = true
			ask()
		}, pause.current)
		pause.current = Math.min(2 * pause.current, longestPause)
		document.addEventListener('visibilitychange', ask)
		return () => {
			clearTimeout(timer)
			document.removeEventListener('visibilitychange', ask)
		}
	}, [data])
	const again = () => {
		pause.current = firstPause
		began.current = Date.now()
		setStopped(false)
		reload()
	}
	return { stopped, again }
}

/** A Loader has one request at a time, and a pause after each. */
class Loader<T> {
	private aborter = new AbortController()
	private asked = false // for another request, in flight or in the pause
	private inFlight = false
	private pause = 0
	private position = '' // that the next answer must include

	constructor(
		private path: string,
		private how: How<T>,
		private loaded: (data: T) => void,
		private failed: (failure: Failure) => void,
	) {}

	stop() {
		this.aborter.abort()
		clearTimeout(this.pause)
		forgetFailure(this.path)
	}

	reload(position = '') {
		if (offset(position) > offset(this.position)) this.position = position
		if (this.inFlight || this.pause) this.asked = true
		else this.run()
	}

	run() {
		if (!this.inFlight) void this.request()
	}

	private async request() {
		clearTimeout(this.pause)
		this.inFlight = true
		this.asked = false
		let wait = this.how.every ?? reloadEvery
		const { position } = this
		try {
			const { signal } = this.aborter
			this.loaded(await get<T>(this.path + atLeast(this.path, position), { ...this.how, signal }))
			if (this.position === position) this.position = ''
			note(this.path)
		} catch (error) {
			if (this.aborter.signal.aborted) return
			const failure = failureOf(error)
			this.failed(failure)
			note(this.path, failure)
			if (failure.temporary) {
				this.asked = true
				wait = 1000 * (failure.retryAfter || retryAfter)
			}
		}
		this.inFlight = false
		this.pause = setTimeout(() => {
			this.pause = 0
			if (this.asked) this.run()
		}, wait)
	}
}

/** The offset of a position: those of a workspace are in one partition. */
const offset = (position: string) => Number(position.split(':')[1] ?? -1)

const atLeast = (path: string, position: string) =>
	position && `${path.includes('?') ? '&' : '?'}${new URLSearchParams({ at_least: position })}`
