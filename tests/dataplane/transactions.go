package main

import (
	"errors"
	"net/http"

	"github.com/haproxytech/client-native/v6/configuration"
	"github.com/haproxytech/client-native/v6/models"
)

func (s *server) routeTransactions(mux *http.ServeMux) {
	const path = services + "/transactions"
	mux.HandleFunc("GET "+path, s.listTransactions)
	mux.HandleFunc("POST "+path, s.startTransaction)
	mux.HandleFunc("GET "+path+"/{id}", s.getTransaction)
	mux.HandleFunc("PUT "+path+"/{id}", s.commitTransaction)
	mux.HandleFunc("DELETE "+path+"/{id}", s.deleteTransaction)
}

// failTransaction is fail, but in a path a missing transaction is a 404.
func failTransaction(w http.ResponseWriter, err error) {
	if errors.Is(err, configuration.ErrTransactionDoesNotExist) {
		failWith(w, err, http.StatusNotFound)
		return
	}
	fail(w, err)
}

func (s *server) listTransactions(w http.ResponseWriter, r *http.Request) {
	status := r.URL.Query().Get("status")
	if status != "" && status != models.TransactionStatusInProgress && status != models.TransactionStatusFailed {
		fail(w, badRequest("status is in_progress or failed"))
		return
	}
	var list *models.Transactions
	if err := s.withConfig(func(c configuration.Configuration) (err error) {
		list, err = c.GetTransactions(status)
		return err
	}); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, list)
}

func (s *server) startTransaction(w http.ResponseWriter, r *http.Request) {
	if !r.URL.Query().Has("version") {
		fail(w, badRequest("a transaction starts from a version"))
		return
	}
	var started *models.Transaction
	if err := s.withConfig(func(c configuration.Configuration) error {
		open, err := c.GetTransactions(models.TransactionStatusInProgress)
		if err != nil {
			return err
		}
		if len(*open) >= s.settings.API.Transaction.MaxOpen {
			return statusError{http.StatusTooManyRequests, "too many open transactions"}
		}
		started, err = c.StartTransaction(queryOf(r).version)
		return err
	}); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusCreated, started)
}

func (s *server) getTransaction(w http.ResponseWriter, r *http.Request) {
	var found *models.Transaction
	if err := s.withConfig(func(c configuration.Configuration) (err error) {
		found, err = c.GetTransaction(r.PathValue("id"))
		return err
	}); err != nil {
		failTransaction(w, err)
		return
	}
	reply(w, http.StatusOK, found)
}

func (s *server) deleteTransaction(w http.ResponseWriter, r *http.Request) {
	if err := s.withConfig(func(c configuration.Configuration) error {
		return c.DeleteTransaction(r.PathValue("id"))
	}); err != nil {
		failTransaction(w, err)
		return
	}
	reply(w, http.StatusNoContent, nil)
}

// commitTransaction also marks as outdated what started from the same version.
func (s *server) commitTransaction(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var committed *models.Transaction
	if err := s.withConfig(func(c configuration.Configuration) error {
		found, err := c.GetTransaction(id)
		if err != nil {
			return err
		}
		if found.Status == models.TransactionStatusOutdated || found.Status == models.TransactionStatusFailed {
			return statusError{http.StatusNotAcceptable, "transaction " + id + " is " + found.Status}
		}
		if committed, err = c.CommitTransaction(id); err != nil {
			return err
		}
		others, err := c.GetTransactions(models.TransactionStatusInProgress)
		if err != nil {
			return err
		}
		for _, other := range *others {
			if other.Version <= committed.Version {
				_ = c.MarkTransactionOutdated(other.ID)
			}
		}
		return nil
	}); err != nil {
		failTransaction(w, err)
		return
	}
	s.settle(w, queryOf(r).force, http.StatusOK, committed)
}
