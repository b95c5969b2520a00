import { useEffect, useRef, useState } from 'preact/hooks'
import { Failure, get } from './api'
import { forgetFailure, note } from './connection'

export interface Loaded<T> {
	data?: T // the last answer for the path, kept while later requests fail
	failure?: Failure // of the last request
	reload: () => void // soon: many calls are one request
	retry: () => void // now
}

const retryAfter = 3 // seconds
const reloadEvery = 500 // milliseconds, at most

/** Requests a path of the API, again when reload is called, and again after a failure that may pass. */
export function useLoad<T>(path: string): Loaded<T> {
	const [state, setState] = useState<{ path: string; data?: T; failure?: Failure }>({ path })
	const loader = useRef<Loader<T>>(null)
	useEffect(() => {
		const made = new Loader<T>(
			path,
			data => setState({ path, data }),
			failure => setState(before => ({ path, data: before.path === path ? before.data : undefined, failure })),
		)
		loader.current = made
		made.run()
		return () => made.stop()
	}, [path])
	const current = state.path === path ? state : { data: undefined, failure: undefined }
	useEffect(() => {
		if (current.data !== undefined) performance.mark('data') // for tests
	}, [current.data])
	return {
		data: current.data,
		failure: current.failure,
		reload: () => loader.current?.reload(),
		retry: () => loader.current?.run(),
	}
}

/** A Loader has one request at a time, and a pause after each. */
class Loader<T> {
	private aborter = new AbortController()
	private asked = false // for another request, in flight or in the pause
	private inFlight = false
	private pause = 0

	constructor(
		private path: string,
		private loaded: (data: T) => void,
		private failed: (failure: Failure) => void,
	) {}

	stop() {
		this.aborter.abort()
		clearTimeout(this.pause)
		forgetFailure(this.path)
	}

	reload() {
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
		let wait = reloadEvery
		try {
			this.loaded(await get<T>(this.path, this.aborter.signal))
			note(this.path)
		} catch (error) {
			if (this.aborter.signal.aborted) return
			const failure = error instanceof Failure ? error : new Failure(0, 'page', String(error))
			this.failed(failure)
			note(this.path, failure)
			if (failure.passing) {
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
