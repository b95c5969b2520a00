// Package e2e runs the real binary and judges its topics and answers.
//
// It promises that the judge is independent: gen makes the webhooks, provider sends them, oracle computes what must
// follow from them, and none of these imports the code that it judges. Package rig starts the binary, and mutants of
// it that the judge must find guilty.
package e2e
