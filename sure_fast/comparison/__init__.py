"""Methods side by side: trained and examined, tables and curves, and a report. It knows the engine."""
