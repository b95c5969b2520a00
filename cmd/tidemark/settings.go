package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// A configFile is the path of a YAML file of settings: a map from flag names to values. Flags and environment override
// it, and it overrides the defaults.
type configFile string

// BeforeResolve reads the file; kong calls it when the flag or its variable is set.
func (c configFile) BeforeResolve(ctx *kong.Context, step *kong.Path) error {
	path, ok := ctx.FlagValue(step.Flag).(configFile)
	if !ok { // not possible: the flag has this type
		return fmt.Errorf("--config holds a %T", ctx.FlagValue(step.Flag))
	}
	file, err := readSettings(string(path), ctx.Model)
	if err != nil {
		return err
	}
	ctx.AddResolver(file)
	return nil
}

// settings are the values of one file by flag name: strings, or slices of them.
type settings map[string]any

// readSettings decodes the file strictly: an unknown key, a repeated one and a nested value are errors that name the
// key and the line.
func readSettings(path string, app *kong.Application) (settings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	values, err := decodeSettings(bytes.NewReader(data), settingNames(app.Node))
	if err != nil {
		return nil, fmt.Errorf("settings file %s: %w", path, err)
	}
	return values, nil
}

func decodeSettings(r io.Reader, known map[string]bool) (settings, error) {
	decoder := yaml.NewDecoder(r)
	var doc yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) { // an empty file sets nothing
		return settings{}, nil
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one YAML document, found another after it")
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want a map from flag names to values, for example \"topic-prefix: fastio\"",
			root.Line)
	}
	values := settings{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		if !known[key.Value] {
			return nil, fmt.Errorf("line %d: unknown setting %q", key.Line, key.Value)
		}
		if _, twice := values[key.Value]; twice {
			return nil, fmt.Errorf("line %d: setting %q is given twice", key.Line, key.Value)
		}
		value, err := settingValue(node)
		if err != nil {
			return nil, fmt.Errorf("line %d: setting %q: %w", key.Line, key.Value, err)
		}
		values[key.Value] = value
	}
	return values, nil
}

// settingValue returns the text of scalars, which the flag's type parses like an argument.
func settingValue(node *yaml.Node) (any, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return node.Value, nil
	case node.Kind == yaml.SequenceNode:
		list := make([]any, 0, len(node.Content))
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, fmt.Errorf("line %d: want a list of plain values", item.Line)
			}
			list = append(list, item.Value)
		}
		return list, nil
	}
	return nil, errors.New("want a value or a list of values")
}

// settingNames returns the flags of all commands that also have a variable. The others belong to one invocation, and a
// file cannot set them.
func settingNames(node *kong.Node) map[string]bool {
	names := map[string]bool{}
	for _, flag := range node.Flags {
		if len(flag.Envs) > 0 {
			names[flag.Name] = true
		}
	}
	for _, child := range node.Children {
		for name := range settingNames(child) {
			names[name] = true
		}
	}
	delete(names, "config") // a file cannot name a file
	return names
}

// Validate satisfies kong.Resolver: readSettings has validated.
func (s settings) Validate(*kong.Application) error { return nil }

// Resolve returns nothing for a flag whose variable is set: kong would let the file override it.
func (s settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	return s[flag.Name], nil
}
