package diff

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// show returns the value of a field in the form that the API gives it, for encoding as JSON.
func show(m protoreflect.Message, field protoreflect.FieldDescriptor) any {
	if !m.Has(field) {
		return nil
	}
	v := m.Get(field)
	switch {
	case field.IsMap():
		out := map[string]any{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			out[k.String()] = single(field.MapValue(), v)
			return true
		})
		return out
	case field.IsList():
		out := make([]any, v.List().Len())
		for i := range out {
			out[i] = single(field, v.List().Get(i))
		}
		return out
	}
	return single(field, v)
}

func single(field protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch field.Kind() {
	case protoreflect.EnumKind:
		if value := field.Enum().Values().ByNumber(v.Enum()); value != nil {
			_, word, _ := strings.Cut(string(value.Name()), "_")
			return strings.ToLower(word)
		}
		return fmt.Sprint(v.Enum())
	case protoreflect.BytesKind:
		return hex.EncodeToString(v.Bytes())
	case protoreflect.MessageKind:
		if at, ok := v.Message().Interface().(*tidemarkv1.Position); ok {
			return at.Text()
		}
		out := map[string]any{}
		v.Message().Range(func(inner protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			out[string(inner.Name())] = show(v.Message(), inner)
			return true
		})
		return out
	case protoreflect.Int64Kind:
		if name := string(field.Name()); name == "at" || strings.HasSuffix(name, "_at") {
			return time.UnixMicro(v.Int()).UTC().Format(time.RFC3339Nano)
		}
	}
	return v.Interface()
}
