package main

import (
	"bytes"
	"fmt"

	"tidemark/telemetry"
)

// A versionCommand prints the version.
type versionCommand struct {
	outputFlags
}

// Run prints the build.
func (c *versionCommand) Run(con console) error {
	build := telemetry.ReadBuild()
	return c.print(con.out, build, func(w *bytes.Buffer) {
		revision := build.Revision
		if build.Modified {
			revision += " (modified)"
		}
		fmt.Fprintf(w, "version\t%s\nrevision\t%s\ngo\t%s\nplatform\t%s\n", build.Version, revision, build.Go,
			build.Platform)
	})
}
