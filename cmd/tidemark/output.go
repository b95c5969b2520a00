package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Formats of a result.
const (
	asTable = "table"
	asJSON  = "json"
	asYAML  = "yaml"
)

// outputFlags are the settings of printed results.
type outputFlags struct {
	Output string `help:"Format of the result: table, json or yaml." short:"o" enum:"table,json,yaml" default:"table" placeholder:"FORM" env:"-"`
}

// print writes v in the chosen format. table writes lines of cells separated by tabs.
func (f outputFlags) print(w io.Writer, v any, table func(*bytes.Buffer)) error {
	switch f.Output {
	case asJSON:
		return printJSON(w, v)
	case asYAML:
		return printYAML(w, v)
	}
	var lines bytes.Buffer
	table(&lines)
	return align(w, &lines)
}

// align writes such lines as columns.
func align(w io.Writer, lines *bytes.Buffer) error {
	columns := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if _, err := columns.Write(lines.Bytes()); err != nil {
		return err
	}
	return columns.Flush()
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printYAML converts JSON, so that both formats have the same names in the same order.
func printYAML(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	node, err := yamlNode(decoder)
	if err != nil {
		return fmt.Errorf("convert JSON to YAML: %w", err)
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return err
	}
	return encoder.Close()
}

// printOne writes v as one of several: one JSON object per line, or one YAML document each.
func printOne(w io.Writer, form string, v any) error {
	if form == asYAML {
		if _, err := io.WriteString(w, "---\n"); err != nil {
			return err
		}
		return printYAML(w, v)
	}
	encoder := json.NewEncoder(w) // also compacts raw JSON values
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// yamlNode converts one JSON value. A map would lose the order, and YAML's parser does not read surrogate pairs.
func yamlNode(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	delim, nested := token.(json.Delim)
	if !nested {
		if number, ok := token.(json.Number); ok {
			return &yaml.Node{Kind: yaml.ScalarNode, Value: number.String()}, nil
		}
		node := &yaml.Node{}
		return node, node.Encode(token)
	}
	node := &yaml.Node{Kind: yaml.MappingNode}
	if delim == '[' {
		node.Kind = yaml.SequenceNode
	}
	for decoder.More() { // in an object names and values alternate, as in a mapping node
		child, err := yamlNode(decoder)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	_, err = decoder.Token()
	return node, err
}

// cell quotes text that has unprintable characters, for terminals and columns.
func cell(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// dash returns the first text that is not empty, or "-".
func dash(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return cell(s)
		}
	}
	return "-"
}

// clock formats a time for a table.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
