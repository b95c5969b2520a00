import { useEffect, useState } from 'preact/hooks'

/** A Store is a value that views follow. */
export class Store<T> {
	private readers = new Set<(value: T) => void>()

	constructor(private value: T) {}

	get = (): T => this.value

	set(value: T) {
		if (Object.is(value, this.value)) return
		this.value = value
		for (const reader of this.readers) reader(value)
	}

	follow(reader: (value: T) => void): () => void {
		this.readers.add(reader)
		return () => this.readers.delete(reader)
	}
}

/** A state that the browser's history keeps: Back, and a reload, find it as it was. Another list has its own. */
export function useKept<T>(name: string, initial: T, list = '') {
	const kept = () => (history.state?.[name] ?? initial) as T
	const [value, setValue] = useState(kept)
	useEffect(() => setValue(kept), [list])
	const set = (next: T) => {
		history.replaceState({ ...history.state, [name]: next }, '')
		setValue(() => next)
	}
	return [value, set] as const
}

export function useStore<T>(store: Store<T>): T {
	const [value, setValue] = useState(store.get())
	useEffect(() => {
		setValue(store.get()) // it may have changed between render and effect
		return store.follow(setValue)
	}, [store])
	return value
}
