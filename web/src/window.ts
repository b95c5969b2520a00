import type { Change } from './api'

export interface Row {
	number: number
	at: number
	change: Change
}

export interface View {
	rows: Row[] // the newest first
	received: number
	skipped: number // received, and never shown
	merged: number // in a later change of the same file
}

const shown = 100
const remembered = 10_000 // files

/** A Window has the changes that the list shows, and counts those that it does not. */
export class Window {
	private rows: Row[] = []
	private fresh: Row[] = []
	private received = 0
	private skipped = 0
	private merged = 0
	private versions = new Map<string, number>()

	/** Adds a change. If the list has not been drawn for so many changes, the oldest of them is skipped. */
	add(change: Change, at: number) {
		this.fresh.push({ number: this.received++, at, change })
		if (this.fresh.length > shown) {
			this.fresh.shift()
			this.skipped++
		}
		this.count(change)
	}

	// Versions rise by one with each event of a file, and the feed has only its newest state.
	private count(change: Change) {
		const id = change.file?.file_id ?? change.file_id ?? ''
		const before = this.versions.get(id)
		if (before !== undefined) this.merged += Math.max(0, change.version - before - 1)
		this.versions.delete(id)
		this.versions.set(id, change.version)
		if (this.versions.size > remembered) {
			for (const oldest of this.versions.keys()) {
				this.versions.delete(oldest)
				break
			}
		}
	}

	draw(): View {
		this.rows = [...this.fresh.reverse(), ...this.rows].slice(0, shown)
		this.fresh = []
		return { rows: this.rows, received: this.received, skipped: this.skipped, merged: this.merged }
	}
}
