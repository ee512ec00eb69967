package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	nativeerrors "github.com/haproxytech/client-native/v6/errors"
	"github.com/haproxytech/client-native/v6/models"
)

func (s *server) routeMaps(mux *http.ServeMux) {
	mux.HandleFunc("GET "+live+"/info", s.getProcess)
	mux.HandleFunc("GET "+live+"/stick_tables/{table}/entries", s.listCounters)
	mux.HandleFunc("GET "+live+"/maps", s.listMaps)
	mux.HandleFunc("GET "+live+"/maps/{map}", s.getMap)
	mux.HandleFunc("PUT "+live+"/maps/{map}", s.putMap)
	mux.HandleFunc("DELETE "+live+"/maps/{map}", s.clearMap)
	mux.HandleFunc("GET "+live+"/maps/{map}/entries", s.listEntries)
	mux.HandleFunc("POST "+live+"/maps/{map}/entries", s.postEntry)
	mux.HandleFunc("GET "+live+"/maps/{map}/entries/{key}", s.addressed(s.getEntry))
	mux.HandleFunc("PUT "+live+"/maps/{map}/entries/{key}", s.addressed(s.putEntry))
	mux.HandleFunc("DELETE "+live+"/maps/{map}/entries/{key}", s.addressed(s.deleteEntry))
}

func (s *server) getProcess(w http.ResponseWriter, _ *http.Request) {
	info, err := s.runtime.GetInfo()
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, &info)
}

func (s *server) listMaps(w http.ResponseWriter, r *http.Request) {
	all, err := s.runtime.ShowMaps()
	if err != nil {
		failRuntime(w, err)
		return
	}
	list := models.Maps{}
	for _, m := range all {
		managed := strings.HasPrefix(m.File, s.settings.API.Resources.Maps+"/")
		if managed {
			m.StorageName = filepath.Base(m.File)
		}
		if managed || r.URL.Query().Get("include_unmanaged") == "true" {
			list = append(list, m)
		}
	}
	reply(w, http.StatusOK, list)
}

func (s *server) getMap(w http.ResponseWriter, r *http.Request) {
	found, err := s.runtime.GetMap(r.PathValue("map"))
	if err != nil {
		failRuntime(w, err)
		return
	}
	reply(w, http.StatusOK, found)
}

// bulkLimit is the size in bytes up to which a bulk PUT adds rows and above
// which it replaces the map.
const bulkLimit = 8192

func (s *server) putMap(w http.ResponseWriter, r *http.Request) {
	var rows models.MapEntries
	if !decode(w, r, &rows) {
		return
	}
	if len(rows) == 0 {
		fail(w, statusError{http.StatusInternalServerError, "a bulk change needs rows"})
		return
	}
	name := r.PathValue("map")
	size := 0
	for _, row := range rows {
		size += len(line(row))
	}
	var err error
	if size > bulkLimit {
		err = s.replaceMap(name, rows)
	} else {
		err = s.runtime.AddMapPayload(name, lines(rows))
	}
	s.afterMapChange(w, r, http.StatusCreated, rows, err)
}

// replaceMap swaps all rows in one step. Each command of HAProxy's must fit in
// its buffer, so the rows go in pieces.
func (s *server) replaceMap(name string, rows models.MapEntries) error {
	version, err := s.runtime.PrepareMap(name)
	if err != nil {
		return err
	}
	path, err := s.runtime.GetMapsPath(name)
	if err != nil {
		return err
	}
	add := func(piece models.MapEntries) error {
		output, err := s.runtime.ExecuteRaw(fmt.Sprintf("add map @%s %s <<\n%s\n", version, path, lines(piece)))
		if err == nil && strings.HasPrefix(output, "[3]:") {
			err = fmt.Errorf("%s: %w", output, nativeerrors.ErrGeneral)
		}
		return err
	}
	start, size := 0, 0
	for i, row := range rows {
		if length := len(line(row)); size+length > bulkLimit && i > start {
			if err := add(rows[start:i]); err != nil {
				return err
			}
			start, size = i, 0
		}
		size += len(line(row))
	}
	if err := add(rows[start:]); err != nil {
		return err
	}
	return s.runtime.CommitMap(version, name)
}

func line(row *models.MapEntry) string { return row.Key + " " + row.Value + "\n" }

func lines(rows models.MapEntries) string {
	var text strings.Builder
	for _, row := range rows {
		text.WriteString(line(row))
	}
	return text.String()
}

func (s *server) clearMap(w http.ResponseWriter, r *http.Request) {
	err := s.runtime.ClearMap(r.PathValue("map"), r.URL.Query().Get("force_delete") == "true")
	s.afterMapChange(w, r, http.StatusNoContent, nil, err)
}

func (s *server) listCounters(w http.ResponseWriter, r *http.Request) {
	entries, err := s.runtime.GetTableEntries(r.PathValue("table"), nil, "")
	if err != nil {
		failRuntime(w, err)
		return
	}
	reply(w, http.StatusOK, entries)
}

func (s *server) listEntries(w http.ResponseWriter, r *http.Request) {
	rows, err := s.runtime.ShowMapEntries(r.PathValue("map"))
	if err != nil {
		failRuntime(w, err)
		return
	}
	reply(w, http.StatusOK, rows)
}

// keyInPath is what a key may be made of to be addressed on its own. The call
// that adds a row has no such limit.
var keyInPath = regexp.MustCompile(`^[^\r\n<>*;$#&{}"]+$`)

func (s *server) addressed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !keyInPath.MatchString(r.PathValue("key")) {
			fail(w, badRequest("the key must match "+keyInPath.String()))
			return
		}
		if r.URL.RawPath == "" && strings.Contains(r.PathValue("key"), "%") {
			// the real one would decode the key twice
			fail(w, badRequest("a key with % needs a path in which some letter is escaped too"))
			return
		}
		next(w, r)
	}
}

func (s *server) postEntry(w http.ResponseWriter, r *http.Request) {
	row := &models.MapEntry{}
	if decode(w, r, row) {
		err := s.runtime.AddMapEntry(r.PathValue("map"), row.Key, row.Value)
		s.afterMapChange(w, r, http.StatusCreated, row, err)
	}
}

func (s *server) getEntry(w http.ResponseWriter, r *http.Request) {
	row, err := s.runtime.GetMapEntry(r.PathValue("map"), r.PathValue("key"))
	if err != nil {
		failRuntime(w, err)
		return
	}
	reply(w, http.StatusOK, row)
}

func (s *server) putEntry(w http.ResponseWriter, r *http.Request) {
	row := &models.MapEntry{}
	if !decode(w, r, row) {
		return
	}
	name, key := r.PathValue("map"), r.PathValue("key")
	err := s.runtime.SetMapEntry(name, key, row.Value)
	if err == nil {
		row, err = s.runtime.GetMapEntry(name, key)
	}
	s.afterMapChange(w, r, http.StatusOK, row, err)
}

func (s *server) deleteEntry(w http.ResponseWriter, r *http.Request) {
	err := s.runtime.DeleteMapEntry(r.PathValue("map"), r.PathValue("key"))
	s.afterMapChange(w, r, http.StatusNoContent, nil, err)
}

// afterMapChange answers, and with force_sync first writes the map to its file.
func (s *server) afterMapChange(w http.ResponseWriter, r *http.Request, done int, body any, err error) {
	if err == nil && queryOf(r).sync {
		err = s.saveMap(r.PathValue("map"))
	}
	if err != nil {
		failRuntime(w, err)
		return
	}
	reply(w, done, body)
}

// saveMap sorts the rows by key, as the real one does: their order is lost.
func (s *server) saveMap(name string) error {
	found, err := s.runtime.GetMap(name)
	if err != nil {
		return err
	}
	rows, err := s.runtime.ShowMapEntries("#" + found.ID)
	if err != nil {
		return err
	}
	slices.SortStableFunc(rows, func(a, b *models.MapEntry) int { return strings.Compare(a.Key, b.Key) })
	return os.WriteFile(found.File, []byte(lines(rows)), 0o600)
}
