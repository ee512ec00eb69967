package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/haproxytech/client-native/v6/configuration"
	"github.com/haproxytech/client-native/v6/models"
)

// reloads gathers what is asked for between two ticks into one reload.
type reloads struct {
	server   *server
	file     string
	lastGood string
	delay    time.Duration

	work sync.Mutex // held while HAProxy reloads

	mu      sync.Mutex // guards what follows
	count   int
	waiting string
	running string
	results map[string]*models.Reload
	success string
}

// newReloads takes the configuration that HAProxy runs now as the last good one.
func newReloads(s *server) (*reloads, error) {
	file := s.settings.HAProxy.ConfigFile
	lastGood := file + ".lkg"
	if dir := s.settings.API.Transaction.BackupsDir; dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		lastGood = filepath.Join(dir, filepath.Base(file)+".lkg")
	}
	return &reloads{
		server:   s,
		file:     file,
		lastGood: lastGood,
		delay:    time.Duration(s.settings.HAProxy.Reload.DelaySeconds) * time.Second,
		results:  map[string]*models.Reload{},
	}, copyFile(file, lastGood)
}

func (r *reloads) loop(ctx context.Context) {
	ticker := time.NewTicker(r.delay)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.mu.Lock()
			wanted := r.waiting != ""
			r.mu.Unlock()
			if wanted {
				_ = r.now()
			}
		}
	}
}

// schedule returns the id of the reload that will follow.
func (r *reloads) schedule() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == "" {
		r.waiting = fmt.Sprintf("%s-%d", time.Now().Format(time.DateOnly), r.count)
		r.count++
	}
	return r.waiting
}

// now reloads at once, and so answers for a waiting reload too.
func (r *reloads) now() error {
	r.work.Lock()
	defer r.work.Unlock()
	r.mu.Lock()
	id := r.waiting
	r.waiting, r.running = "", id
	r.mu.Unlock()

	output, err := r.server.runtime.Reload()
	result := &models.Reload{
		ID: id, Status: models.ReloadStatusSucceeded, Response: output, ReloadTimestamp: time.Now().Unix(),
	}
	if err == nil {
		err = copyFile(r.file, r.lastGood)
	} else {
		log.Printf("reload %s failed: %v", id, err)
		result.Status = models.ReloadStatusFailed
		if restored := r.restore(); restored != nil {
			log.Printf("restoring %s failed: %v", r.file, restored)
		}
		err = badRequest(fmt.Sprintf("reload failed: %v, %s", err, output))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = ""
	if id != "" {
		r.results[id] = result
		if err == nil {
			r.success = id
		}
	}
	return err
}

// restore copies the last good file back. What the API itself holds in memory
// stays as it was committed, and so does its version: the real one notices a
// change of the file only if the checksum in its first line does not fit, as
// in a file that it did not write.
func (r *reloads) restore() error {
	if err := copyFile(r.lastGood, r.file); err != nil {
		return err
	}
	if checksumFits(r.file) {
		return nil
	}
	return r.server.withConfig(func(c configuration.Configuration) error {
		if err := c.LoadData(r.file); err != nil {
			return err
		}
		return c.IncrementVersion()
	})
}

func checksumFits(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	sum := md5.Sum(rest)
	return string(first) == "# _md5hash="+hex.EncodeToString(sum[:])
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// find returns nil for a reload that nobody asked for.
func (r *reloads) find(id string) *models.Reload {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == r.waiting || id == r.running {
		return &models.Reload{ID: id, Status: models.ReloadStatusInProgress}
	}
	return r.results[id]
}

// list returns the failed reloads, the last that succeeded, and those to come.
func (r *reloads) list() models.Reloads {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := models.Reloads{}
	for id, result := range r.results {
		if result.Status == models.ReloadStatusFailed || id == r.success {
			list = append(list, result)
		}
	}
	for _, id := range []string{r.running, r.waiting} {
		if id != "" {
			list = append(list, &models.Reload{ID: id, Status: models.ReloadStatusInProgress})
		}
	}
	return list
}

var reloadID = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}-\d+$`)

func (s *server) routeReloads(mux *http.ServeMux) {
	mux.HandleFunc("GET "+services+"/reloads", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, s.reloads.list())
	})
	mux.HandleFunc("GET "+services+"/reloads/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if !reloadID.MatchString(id) {
			fail(w, badRequest("not the id of a reload: "+id))
		} else if reload := s.reloads.find(id); reload != nil {
			reply(w, http.StatusOK, reload)
		} else {
			fail(w, statusError{http.StatusNotFound, "no such reload: " + id})
		}
	})
}

// settle ends a change of the configuration file: at once with status done, or
// later with 202 and the id of the reload.
func (s *server) settle(w http.ResponseWriter, force bool, done int, body any) {
	if force {
		if err := s.reloads.now(); err != nil {
			fail(w, err)
			return
		}
		reply(w, done, body)
		return
	}
	w.Header().Set("Reload-ID", s.reloads.schedule())
	reply(w, http.StatusAccepted, body)
}
