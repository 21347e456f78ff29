// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// SchemaJSON is a codec for schemas: the format of Curator's SchemaSetLoader, an array with an object for each rule,
//
//	{"name": "hosts", "path": "/app/hosts/.*", "isRegex": true, "ephemeral": "must", "canBeDeleted": true}
//
// and besides "sequential", "watched", "schemaValidator", "documentation" and "metadata". As there, name and path are required,
// and what is not said to be deletable is not. Patterns are written as the regular expressions that mean the same. Closed is
// not part of the format: what is decoded is open. Unknown fields are an error.
type SchemaJSON struct {
	// Checks has what Rule.Validator names. A validator that is not there is an error.
	Checks map[string]func(path string, data []byte) error
}

type ruleJSON struct {
	Name         string            `json:"name"`
	Path         string            `json:"path"`
	IsRegex      bool              `json:"isRegex,omitempty"`
	Validator    string            `json:"schemaValidator,omitempty"`
	Doc          string            `json:"documentation,omitempty"`
	Ephemeral    Allowance         `json:"ephemeral"`
	Sequential   Allowance         `json:"sequential"`
	Watched      Allowance         `json:"watched"`
	CanBeDeleted bool              `json:"canBeDeleted"`
	Metadata     map[string]string `json:"metadata,omitempty"`
}

// Encode writes a schema whose rules all have a name, and a Validator for each Check. All else is an error.
func (SchemaJSON) Encode(x *Schema) ([]byte, error) {
	if x == nil {
		return nil, errors.New("no schema")
	}
	if err := x.compile(); err != nil {
		return nil, err
	}
	list := []ruleJSON{}
	for _, r := range x.Rules {
		if r.Name == "" || r.Check != nil && r.Validator == "" {
			return nil, fmt.Errorf("the rule for %s has no name, or none for its check", r.Pattern)
		}
		j := ruleJSON{r.Name, r.Pattern, r.Regexp, r.Validator, r.Doc, r.Ephemeral, r.Sequential, r.Watched, !r.NoDelete, r.Metadata}
		if !r.Regexp && !exact(r.Pattern) {
			var err error
			if j.Path, err = expression(r.Pattern); err != nil {
				return nil, err
			}
			j.IsRegex = true
		}
		list = append(list, j)
	}
	return json.Marshal(list)
}

// Decode reads a schema, and checks that it is one. The error, which a Value wraps in a *DecodeError, names the rule.
func (c SchemaJSON) Decode(b []byte) (*Schema, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var list []ruleJSON
	if err := d.Decode(&list); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is something after the schema")
	}
	x := &Schema{}
	for i, j := range list {
		if j.Name == "" || j.Path == "" {
			return nil, fmt.Errorf("rule %d has no name or no path", i)
		}
		r := Rule{
			Pattern: j.Path, Regexp: j.IsRegex, Ephemeral: j.Ephemeral, Sequential: j.Sequential, Watched: j.Watched,
			NoDelete: !j.CanBeDeleted, Name: j.Name, Validator: j.Validator, Doc: j.Doc, Metadata: j.Metadata,
		}
		if !r.Regexp && !exact(r.Pattern) { // with nothing to stand for something else, as there
			return nil, fmt.Errorf("rule %q: %s is a pattern, not a path", j.Name, j.Path)
		}
		if j.Validator != "" {
			if r.Check = c.Checks[j.Validator]; r.Check == nil {
				return nil, fmt.Errorf("rule %q: unknown validator %q", j.Name, j.Validator)
			}
		}
		x.Rules = append(x.Rules, r)
	}
	return x, x.compile()
}
