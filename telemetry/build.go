package telemetry

import (
	"runtime"
	"runtime/debug"
)

// A Build identifies the binary.
type Build struct {
	Version  string `json:"version" yaml:"version"`   // the module's version, "(devel)" outside a tagged build
	Revision string `json:"revision" yaml:"revision"` // the commit, "unknown" when built outside a repository
	Modified bool   `json:"modified" yaml:"modified"` // the working tree differed from the commit
	Time     string `json:"time" yaml:"time"`         // of the commit
	Go       string `json:"go" yaml:"go"`
	Platform string `json:"platform" yaml:"platform"`
}

// ReadBuild returns the build information that the Go toolchain stored in this binary.
func ReadBuild() Build {
	b := Build{
		Version: "(devel)", Revision: "unknown", Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	return b
}
