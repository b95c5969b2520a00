// What the page knows of the server: whether it answers, how far it is behind, and whether it wants a token.
import { type Failure, get, type Status } from './api'
import { Store } from './store'

export interface Connection {
	failure?: Failure // of the last request, if trying again may help
	answered?: number // time of the last answer
	status?: Status
}

export const connection = new Store<Connection>({})
export const signedOut = new Store(false)

/** Notes how a request ended. */
export function note(failure?: Failure) {
	if (!failure) {
		connection.set({ ...connection.get(), failure: undefined, answered: Date.now() })
	} else if (failure.status === 401) {
		signedOut.set(true)
	} else if (failure.passing) {
		connection.set({ ...connection.get(), failure })
	}
}

/** The greatest lag of the partitions, in seconds. */
export const lagOf = (status?: Status) => Math.max(0, ...(status?.partitions ?? []).map(p => p.lag_seconds))

const pollEvery = 5_000
const pollWhileFailing = 2_000

/** Polls the status while the page is visible, and until the returned function is called. */
export function pollStatus(): () => void {
	const stop = new AbortController()
	let timer = 0
	const poll = async () => {
		clearTimeout(timer)
		if (document.hidden || signedOut.get()) return
		try {
			const status = await get<Status>('v1/status', stop.signal)
			connection.set({ status, answered: Date.now() })
		} catch (error) {
			if (stop.signal.aborted) return
			note(error as Failure)
		}
		clearTimeout(timer)
		timer = setTimeout(poll, connection.get().failure ? pollWhileFailing : pollEvery)
	}
	const unfollow = signedOut.follow(() => void poll())
	document.addEventListener('visibilitychange', poll)
	void poll()
	return () => {
		stop.abort()
		clearTimeout(timer)
		unfollow()
		document.removeEventListener('visibilitychange', poll)
	}
}
