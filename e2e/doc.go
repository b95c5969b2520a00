// Package e2e runs the real binary and judges what came of it.
//
// It promises that the judge is independent: gen makes what is sent, provider sends it, oracle says what must have come of it,
// and none of them imports what they judge. Package control, the one that does, holds programs that must be found guilty.
package e2e
