package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Connect returns a standalone Kafka Connect worker with a connector of deploy/connect. root is the folder of the
// checkout. worker and connector are properties, key=value, that replace those in the files.
func Connect(root, dir, file string, worker, connector []string) (*Program, error) {
	script, err := filepath.Abs(filepath.Join(root, "deploy/kafka/kafka.sh"))
	if err != nil {
		return nil, err
	}
	p := &Program{Name: "connect", Path: script, Args: []string{"connect"}, Log: filepath.Join(dir, "connect.log")}
	p.URL = "http://" + FreeAddr()
	worker = append([]string{
		"listeners=" + p.URL, "offset.storage.file.filename=" + filepath.Join(dir, "offsets"),
	}, worker...)
	for name, set := range map[string][]string{"worker.properties": worker, file: connector} {
		err := setProperties(filepath.Join(root, "deploy/connect", name), filepath.Join(dir, name), set)
		if err != nil {
			return nil, err
		}
	}
	p.Args = append(p.Args, filepath.Join(dir, "worker.properties"), filepath.Join(dir, file))
	return p, nil
}

// setProperties copies a file of Java properties with some of them replaced. The file must have each of them.
func setProperties(from, to string, set []string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	for _, property := range set {
		key, _, _ := strings.Cut(property, "=")
		line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(key) + `=.*$`)
		if !line.Match(text) {
			return fmt.Errorf("%s does not set %s", from, key)
		}
		text = line.ReplaceAllLiteral(text, []byte(property))
	}
	return os.WriteFile(to, text, 0o600)
}
