// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// curatorInstances is the JSON of Curator's service discovery. Where Curator writes the class of a payload beside it, it is
// passed over.
type curatorInstances[T any] struct{}

type curatorInstance struct {
	Name       string          `json:"name"`
	ID         string          `json:"id"`
	Address    *string         `json:"address"`
	Port       *int            `json:"port"`
	TLS        *int            `json:"sslPort"`
	Payload    json.RawMessage `json:"payload"`
	Registered int64           `json:"registrationTimeUTC"`
	Type       string          `json:"serviceType"`
	URISpec    *curatorSpec    `json:"uriSpec"`
	Enabled    *bool           `json:"enabled"` // absent, as Curator's default leaves it, means true
}

// curatorSpec is a template, cut into its parts.
type curatorSpec struct {
	Parts []curatorPart `json:"parts"`
}

type curatorPart struct {
	Value    string `json:"value"`
	Variable bool   `json:"variable"`
}

var (
	errNoIdentity = errors.New("an instance needs a name and an id")
	errBraces     = errors.New("braces of a URI template do not match")
)

// Encode implements Codec.
func (curatorInstances[T]) Encode(in Instance[T]) ([]byte, error) {
	j := curatorInstance{Name: in.Name, ID: in.ID, Registered: in.Registered.UnixMilli(), Type: in.Type.String(), Enabled: &in.Enabled}
	if in.Name == "" || in.ID == "" {
		return nil, errNoIdentity
	}
	if in.Address != "" {
		j.Address = &in.Address
	}
	if in.Port != 0 {
		j.Port = &in.Port
	}
	if in.TLS != 0 {
		j.TLS = &in.TLS
	}
	var err error
	if j.URISpec, err = cutSpec(in.URISpec); err != nil {
		return nil, err
	}
	if _, empty := any(in.Payload).(struct{}); !empty {
		if j.Payload, err = json.Marshal(in.Payload); err != nil {
			return nil, fmt.Errorf("the payload: %w", err)
		}
	}
	return json.Marshal(j)
}

// Decode implements Codec.
func (curatorInstances[T]) Decode(b []byte) (in Instance[T], err error) {
	var j curatorInstance
	if err := json.Unmarshal(b, &j); err != nil {
		return in, err
	}
	if j.Name == "" || j.ID == "" {
		return in, errNoIdentity
	}
	kind := slices.Index(instanceTypes[:], j.Type)
	if kind < 0 {
		return in, fmt.Errorf("unknown type %q", j.Type)
	}
	payload, err := decodePayload[T](j.Payload)
	if err != nil {
		return in, fmt.Errorf("the payload: %w", err)
	}
	return Instance[T]{
		Name: j.Name, ID: j.ID, Address: deref(j.Address, ""), Port: deref(j.Port, 0), TLS: deref(j.TLS, 0), Payload: payload,
		Type: InstanceType(kind), URISpec: j.URISpec.join(), Enabled: deref(j.Enabled, true), Registered: time.UnixMilli(j.Registered),
	}, nil
}

func deref[V any](p *V, otherwise V) V {
	if p == nil {
		return otherwise
	}
	return *p
}

// decodePayload takes a payload, or one that is in an array with its class, as Curator writes numbers and lists.
func decodePayload[T any](b json.RawMessage) (payload T, err error) {
	if len(b) == 0 {
		return payload, nil
	}
	if err = json.Unmarshal(b, &payload); err == nil {
		return payload, nil
	}
	var pair []json.RawMessage
	var class string
	if json.Unmarshal(b, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &class) != nil {
		return *new(T), err
	}
	payload = *new(T)
	if json.Unmarshal(pair[1], &payload) != nil {
		return *new(T), err
	}
	return payload, nil
}

// cutSpec cuts a template into what stands between braces and what does not.
func cutSpec(spec string) (*curatorSpec, error) {
	if spec == "" {
		return nil, nil
	}
	parts := []curatorPart{}
	for inside := false; spec != ""; inside = !inside {
		text, brace := spec, byte(0)
		if i := strings.IndexAny(spec, "{}"); i >= 0 {
			text, brace, spec = spec[:i], spec[i], spec[i+1:]
		} else {
			spec = ""
		}
		if inside != (brace == '}') || !inside && brace == '{' && spec == "" {
			return nil, errBraces
		}
		if text != "" {
			parts = append(parts, curatorPart{Value: text, Variable: inside})
		}
	}
	return &curatorSpec{parts}, nil
}

func (s *curatorSpec) join() string {
	var b strings.Builder
	if s != nil {
		for _, p := range s.Parts {
			if p.Variable {
				b.WriteString("{" + p.Value + "}")
			} else {
				b.WriteString(p.Value)
			}
		}
	}
	return b.String()
}
