package rulefile

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // minimal container images have no time zone database

	"go.yaml.in/yaml/v3"
)

func (f *File) read(n *yaml.Node, v any) {
	f.lines[""] = n.Line
	f.decode(n, reflect.ValueOf(v).Elem(), "")
}

// decode reads n into v.
func (f *File) decode(n *yaml.Node, v reflect.Value, at string) {
	if f.lines[at] == 0 {
		f.lines[at] = n.Line
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	_, ownText := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	switch kind := v.Kind(); {
	case ownText, v.Type() == zone, kind != reflect.Pointer && kind != reflect.Slice && kind != reflect.Struct:
		f.decodeScalar(n, v, at)
	case kind == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.decode(n, v.Elem(), at)
	case kind == reflect.Slice:
		if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
			f.Failf(at, "want a list that is not empty, for example [a, b]; or leave it out")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, element := range n.Content {
			f.decode(element, v.Index(i), fmt.Sprintf("%s[%d]", at, i))
		}
	case n.Kind != yaml.MappingNode:
		f.Failf(at, "want settings, {} for none")
	default:
		f.decodeStruct(n, v, at)
	}
}

// A scalar with a meaning of its own implements encoding.TextUnmarshaler, and its error says what is wanted.
func (f *File) decodeScalar(n *yaml.Node, v reflect.Value, at string) {
	if n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null" {
		f.Failf(at, "want one value, not empty")
		return
	}
	var err error
	switch into := v.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		err = into.UnmarshalText([]byte(n.Value))
	case **time.Location:
		if *into, err = time.LoadLocation(n.Value); err != nil || *into == time.Local {
			err = fmt.Errorf("%q is not a time zone: want one like Europe/Vienna", n.Value)
		}
	case *time.Duration:
		if *into, err = time.ParseDuration(n.Value); err != nil || *into <= 0 {
			err = fmt.Errorf("%q is not a duration: want one like 90s, 15m or 24h", n.Value)
		}
	case *string:
		*into = n.Value
	case *bool:
		if n.Tag != "!!bool" || n.Decode(into) != nil {
			err = fmt.Errorf("%q is not true or false", n.Value)
		}
	default:
		if n.Tag != "!!int" || n.Decode(into) != nil { // Decode would cut 1.5 to 1
			err = fmt.Errorf("%q is not a whole number in the range of %s", n.Value, v.Type())
		}
	}
	if err != nil {
		f.Failf(at, "%v", err)
	}
}

var zone = reflect.TypeFor[*time.Location]()

func (f *File) decodeStruct(n *yaml.Node, v reflect.Value, at string) {
	into, names, secrets := settings(v)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		child := strings.TrimPrefix(at+"."+name, ".")
		target, known := into[name]
		_, twice := f.lines[child]
		f.lines[child] = n.Content[i].Line
		switch {
		case slices.Contains(secrets, name):
			f.Failf(child, "a secret must not be in this file: give the path of a file with it as %s_file, "+
				"or the name of an environment variable with it as %s_env", name, name)
		case !known:
			f.Failf(child, "unknown setting%s", Nearest(name, names))
		case twice:
			f.Failf(child, "given twice: remove one")
		default:
			f.decode(n.Content[i+1], target, child)
		}
	}
	if c, ok := reflect.TypeAssert[Checker](v.Addr()); ok {
		c.Check(f, at)
	}
}

// settings returns the fields of a struct by the names of their settings, and these names in order. secrets are names
// without their suffix.
func settings(v reflect.Value) (into map[string]reflect.Value, names, secrets []string) {
	into = map[string]reflect.Value{}
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		if name == "" {
			continue // not a setting
		}
		if _, secret := reflect.TypeAssert[Secret](v.Field(i)); secret {
			into[name+"_file"], into[name+"_env"] = v.Field(i).Field(0), v.Field(i).Field(1)
			names, secrets = append(names, name+"_file", name+"_env"), append(secrets, name)
			continue
		}
		into[name], names = v.Field(i), append(names, name)
	}
	return into, names, secrets
}
