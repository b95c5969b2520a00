package model

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"tidemark/sinks"
)

const maxAnswer = 256 << 10 // bytes; decoded, they may take 50 times as many

// A reply is an answer of the Open Inference Protocol v2 (KServe) or of TensorFlow Serving.
type reply struct {
	ModelVersion string           `json:"model_version"`
	Inputs       []tensor         `json:"inputs"`               // in metadata
	Outputs      json.RawMessage  `json:"outputs"`              // KServe: tensors; TensorFlow: by name, or the only one
	Versions     []map[string]any `json:"model_version_status"` // of TensorFlow
}

type tensor struct {
	Name     string `json:"name"`
	Shape    []int  `json:"shape"`
	Datatype string `json:"datatype"`
	Data     any    `json:"data"`
}

func (r *Rule) endpoint() *Endpoint { return cmp.Or(r.KServe, r.TensorFlow) }

// Check returns nil if the model is loaded and, where the server lists them, has the inputs of the rule.
func (s *Sink) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Rule.Deadline)
	defer cancel()
	meta, err := s.call(ctx, http.MethodGet, "", nil)
	if err == nil && s.Rule.KServe != nil {
		_, err = s.call(ctx, http.MethodGet, "/ready", nil)
	} else if err == nil && !slices.ContainsFunc(meta.Versions, available) {
		err = errors.New("no version of the model is AVAILABLE: load one")
	}
	for _, in := range s.Rule.Inputs {
		same := func(t tensor) bool { return t.Name == in.Name && t.Datatype == in.Datatype }
		if err == nil && len(meta.Inputs) > 0 && !slices.ContainsFunc(meta.Inputs, same) {
			err = fmt.Errorf("the model has no input %s of datatype %s: correct inputs", in.Name, in.Datatype)
		}
	}
	if err != nil {
		return fmt.Errorf("--model-rules: rule %s: %w", s.Rule.Name, err)
	}
	return nil
}

func available(version map[string]any) bool { return version["state"] == "AVAILABLE" }

// ask sends a request for tasks, and sets their answers.
func (s *Sink) ask(ctx context.Context, tasks []*task) error {
	ctx, cancel := context.WithTimeout(ctx, s.Rule.Deadline)
	defer cancel()
	var tensors []tensor
	columns := map[string]any{}
	for i, in := range s.Rule.Inputs {
		data, shape := make([]any, len(tasks)), []int{len(tasks)}
		for j, t := range tasks {
			data[j] = t.values[i]
			if in.Column {
				data[j], shape = []any{t.values[i]}, []int{len(tasks), 1}
			}
		}
		tensors = append(tensors, tensor{in.Name, shape, in.Datatype, data})
		columns[in.Name] = data
	}
	verb, body := "/infer", map[string]any{"inputs": tensors}
	if tf := s.Rule.TensorFlow; tf != nil {
		verb, body["inputs"] = ":predict", columns
		body["signature_name"] = cmp.Or(tf.Signature, "serving_default")
	}
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	r, err := s.call(ctx, http.MethodPost, verb, data)
	if err != nil {
		return err
	}
	outputs, err := s.outputs(r, len(tasks))
	if err != nil {
		return err
	}
	for i, t := range tasks {
		row := map[string]any{}
		for name, values := range outputs {
			row[name] = values[i]
		}
		if t.answer.outputs, err = json.Marshal(row); err != nil {
			return fmt.Errorf("encode outputs: %w", err)
		}
		t.asked, t.answer.modelVersion = true, cmp.Or(r.ModelVersion, s.Rule.endpoint().Version)
	}
	return nil
}

// outputs returns the outputs to keep by name: a value for each of n files. It rejects what does not fit: the same
// request would give the same answer.
func (s *Sink) outputs(r *reply, n int) (map[string][]any, error) {
	if len(r.Outputs) == 0 {
		return nil, unfit("no outputs")
	}
	all := map[string][]any{}
	if s.Rule.KServe != nil {
		var tensors []tensor
		if err := decode(r.Outputs, &tensors); err != nil {
			return nil, err
		}
		for _, t := range tensors {
			data, size := flatten([]any{}, t.Data), 1.0
			for _, dimension := range t.Shape {
				size *= float64(dimension)
			}
			if len(t.Shape) == 0 || t.Shape[0] != n || size != float64(len(data)) {
				return nil, unfit("output %s: shape %v and %d values for %d files", t.Name, t.Shape, len(data), n)
			}
			if all[t.Name] = data; len(t.Shape) > 1 {
				all[t.Name] = make([]any, n)
				for i := range n {
					all[t.Name][i] = data[i*len(data)/n : (i+1)*len(data)/n]
				}
			}
		}
	} else {
		var outputs any
		if err := decode(r.Outputs, &outputs); err != nil {
			return nil, err
		}
		named, ok := outputs.(map[string]any)
		if !ok { // the model has one output
			named = map[string]any{slices.Concat(s.Rule.Outputs, []string{"output"})[0]: outputs}
		}
		for name, values := range named {
			all[name], _ = values.([]any)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if len(s.Rule.Outputs) > 0 && !slices.Contains(s.Rule.Outputs, name) {
			delete(all, name)
		} else if len(all[name]) != n || slices.ContainsFunc(flatten(nil, all[name]), notFinite) {
			return nil, unfit("output %s: want a finite value for each of %d files", name, n)
		}
	}
	if len(all) < max(1, len(s.Rule.Outputs)) {
		return nil, unfit("want the outputs %v", s.Rule.Outputs)
	}
	return all, nil
}

// notFinite also refuses null, which some servers write for NaN.
func notFinite(value any) bool {
	number, ok := value.(json.Number)
	_, err := number.Float64()
	return value == nil || ok && err != nil
}

// flatten appends the values of nested lists to list.
func flatten(list []any, value any) []any {
	nested, ok := value.([]any)
	if !ok {
		return append(list, value)
	}
	for _, v := range nested {
		list = flatten(list, v)
	}
	return list
}

func unfit(text string, args ...any) *sinks.Rejected {
	return &sinks.Rejected{Reason: "unusable answer: correct the model or the rule", Answer: fmt.Sprintf(text, args...)}
}

// decode keeps numbers as they are. What is cut or no JSON is an error. A wrong type, NaN and Infinity are rejected.
func decode(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	err := decoder.Decode(into)
	_, typed := errors.AsType[*json.UnmarshalTypeError](err)
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if typed || ok && strings.ContainsRune("NI", rune(data[syntax.Offset-1])) {
		return unfit("%v in %.200s", err, data)
	}
	return err
}

// call makes a request to the model and reads the answer.
func (s *Sink) call(ctx context.Context, method, verb string, body []byte) (*reply, error) {
	e, path := s.Rule.endpoint(), "/v1/models/"
	if s.Rule.KServe != nil {
		path = "/v2/models/"
	}
	path = strings.TrimSuffix(e.URL, "/") + path + url.PathEscape(e.Model)
	if e.Version != "" {
		path += "/versions/" + url.PathEscape(e.Version)
	}
	request, err := http.NewRequestWithContext(ctx, method, path+verb, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the model: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	for _, h := range s.Rule.Headers {
		value, err := h.Value.Read()
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		request.Header.Set(h.Name, value)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the model: %w", err)
	}
	defer response.Body.Close()
	r := new(reply)
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
	case response.StatusCode != http.StatusOK:
		return nil, refusal(response, data)
	case len(data) > maxAnswer:
		return nil, unfit("more than %d bytes", maxAnswer)
	case method == http.MethodPost || len(data) > 0:
		err = decode(data, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", request.URL, err)
	}
	return r, nil
}

// refusal returns the error for an answer that is not 200. Access to the model, and its absence, are not the fault of
// the file.
func refusal(response *http.Response, data []byte) error {
	var body struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(data, &body) != nil || body.Error == "" {
		body.Error = string(data)
	}
	text := fmt.Sprintf("%s: %.1000s", response.Status, body.Error)
	if code := response.StatusCode; code/100 == 4 && !slices.Contains([]int{401, 403, 404, 408, 425, 429}, code) {
		return &sinks.Rejected{Reason: "the model refuses the file", Answer: text}
	}
	return sinks.LaterOf(response.StatusCode, sinks.RetryAfter(response.Header, time.Hour),
		fmt.Errorf("%s answers %s", response.Request.URL, text))
}
