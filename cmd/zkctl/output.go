// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/seed-541fafe0/zk"
)

// jsonStat is a Stat as --output json prints it.
type jsonStat struct {
	Czxid          string `json:"czxid"`
	Mzxid          string `json:"mzxid"`
	Pzxid          string `json:"pzxid"`
	Ctime          string `json:"ctime"`
	Mtime          string `json:"mtime"`
	Version        int32  `json:"version"`
	Cversion       int32  `json:"cversion"`
	Aversion       int32  `json:"aversion"`
	EphemeralOwner string `json:"ephemeralOwner"`
	DataLength     int    `json:"dataLength"`
	NumChildren    int    `json:"numChildren"`
}

func toJSON(st zk.Stat) *jsonStat {
	return &jsonStat{st.Czxid.String(), st.Mzxid.String(), st.Pzxid.String(), st.Ctime.UTC().Format(time.RFC3339Nano), st.Mtime.UTC().Format(time.RFC3339Nano),
		st.Version, st.Cversion, st.Aversion, st.EphemeralOwner.String(), st.DataLength, st.NumChildren}
}

// jsonZnode is one znode, whole or in part.
type jsonZnode struct {
	Path     string    `json:"path"`
	Data     *string   `json:"data"`
	Encoding string    `json:"encoding,omitempty"` // base64 where the data is not text
	Stat     *jsonStat `json:"stat,omitempty"`
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func statText(st zk.Stat) string {
	var b bytes.Buffer
	for _, f := range [...]struct {
		name  string
		value any
	}{
		{"cZxid", st.Czxid}, {"ctime", st.Ctime.UTC().Format(time.RFC3339Nano)}, {"mZxid", st.Mzxid}, {"mtime", st.Mtime.UTC().Format(time.RFC3339Nano)},
		{"pZxid", st.Pzxid}, {"cversion", st.Cversion}, {"dataVersion", st.Version}, {"aclVersion", st.Aversion},
		{"ephemeralOwner", st.EphemeralOwner}, {"dataLength", st.DataLength}, {"numChildren", st.NumChildren},
	} {
		fmt.Fprintf(&b, "%s = %v\n", f.name, f.value)
	}
	return b.String()
}

func (a *app) printNames(names []string, st *zk.Stat) error {
	if a.output == "json" {
		if st == nil {
			return a.printJSON(append([]string{}, names...))
		}
		return a.printJSON(struct {
			Children []string  `json:"children"`
			Stat     *jsonStat `json:"stat"`
		}{append([]string{}, names...), toJSON(*st)})
	}
	var b bytes.Buffer
	for _, n := range names {
		b.WriteString(n)
		b.WriteByte('\n')
	}
	if st != nil {
		b.WriteString(statText(*st))
	}
	_, err := b.WriteTo(a.out)
	return err
}

func (a *app) printZnode(path string, data []byte, st zk.Stat, withStat bool) error {
	if a.output == "json" {
		z := jsonZnode{Path: path, Stat: toJSON(st)}
		if data != nil {
			text := string(data)
			if !utf8.Valid(data) {
				z.Encoding, text = "base64", base64.StdEncoding.EncodeToString(data)
			}
			z.Data = &text
		}
		return a.printJSON(z)
	}
	if a.output == "text" && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	if _, err := a.out.Write(data); err != nil || !withStat {
		return err
	}
	_, err := io.WriteString(a.out, statText(st))
	return err
}

func (a *app) printStat(path string, st zk.Stat) error {
	if a.output == "json" {
		return a.printJSON(struct {
			Path string    `json:"path"`
			Stat *jsonStat `json:"stat"`
		}{path, toJSON(st)})
	}
	_, err := io.WriteString(a.out, statText(st))
	return err
}

func (a *app) printPath(path string, st zk.Stat) error {
	if a.output == "json" && a.legacy { // the answer had no Stat
		return a.printJSON(struct {
			Path string `json:"path"`
		}{path})
	}
	if a.output == "json" {
		return a.printStat(path, st)
	}
	_, err := fmt.Fprintln(a.out, path)
	return err
}

func (a *app) printEvent(ev zk.Event) error {
	if a.output == "json" {
		return a.printJSON(struct {
			Type string `json:"type"`
			Path string `json:"path"`
			Zxid string `json:"zxid,omitempty"`
		}{ev.Type.String(), ev.Path, zxidText(ev.Zxid)})
	}
	_, err := fmt.Fprintln(a.out, ev.Type, ev.Path, zxidText(ev.Zxid))
	return err
}

// zxidText is empty where the server did not say.
func zxidText(z zk.Zxid) string {
	if z <= 0 {
		return ""
	}
	return z.String()
}
