//! The rows of the tables: what is skipped, what is not, and what dispatches.

use super::*;

/// Functions that are to blame where they stand innermost, many of them in titles of known crashes.
/// Patterns are general; none may take one of these.
#[rustfmt::skip]
static GUILTY: &[&str] = &[
    // Networks.
    "tcp_rcv_state_process tcp_retransmit_timer tcp_write_timer_handler tcp_mark_head_lost \
     tcp_push tcp_sendmsg_locked tcp_sk_exit_batch inet_csk_destroy_sock inet_sock_destruct \
     sk_stream_kill_queues __sk_destruct sk_psock_stop sock_map_delete_elem sk_clone_lock \
     lock_sock_nested sk_wait_data skb_dequeue skb_release_data skb_unref skb_copy_bits \
     skb_segment skb_checksum_help __skb_gso_segment skb_warn_bad_offload __alloc_skb \
     __netdev_alloc_skb napi_alloc_skb netdev_alloc_frag pskb_expand_head ___pskb_trim \
     __pskb_pull_tail skb_try_coalesce skb_queue_purge_reason __dev_queue_xmit \
     dev_hard_start_xmit dev_watchdog linkwatch_run_queue unregister_netdevice_many \
     unregister_netdevice_many_notify unregister_netdevice_queue_many free_netdev \
     netdev_freemem netdev_run_todo igmp_send_report igmpv3_send_cr mld_send_report \
     mld_sendpack ip_mc_del1_src ip6_mc_del1_src fib6_clean_node fib6_rt_update \
     fib_sync_down_dev fib_trie_unmerge rt6_fill_node ip6_dst_idev ip6_pol_route ipv6_add_dev \
     addrconf_dad_work addrconf_rs_timer rt_cache_valid rtnl_newlink rtnl_dump_ifinfo \
     rtnetlink_put_metrics netlink_sendmsg genl_register_family nla_parse_nested \
     __nla_validate_parse nlmsg_trim xfrm_policy_lookup_bytype xfrm_state_find \
     xfrm_hash_rebuild xfrm_timer_handler sctp_sf_do_unexpected_init sctp_auth_ep_set_hmacs \
     sctp_stream_clear sctp_sched_prio_sched tipc_nametbl_publish tipc_sk_filter_rcv \
     tipc_aead_encrypt macsec_encrypt tls_push_record tls_sw_sendmsg tls_encrypt_done \
     smc_close_active_abort smc_tx_sendmsg rds_cong_queue_updates rds_tcp_kill_sock \
     rxrpc_put_local rxrpc_queue_local l2tp_session_delete l2tp_xmit_skb pppol2tp_session_close \
     packet_rcv packet_lookup_frame_in_block tpacket_rcv llc_sap_find llc_conn_handler \
     nr_insert_socket nr_rx_frame rose_timer_expiry rose_write_internal ax25_fillin_cb \
     x25_device_event mrp_attr_create vlan_dev_hard_start_xmit br_multicast_del_pg \
     br_nf_pre_routing br_fdb_update bond_work_init_all bond_update_slave_arr \
     team_queue_override_port_prio_changed macvlan_process_broadcast ipvlan_queue_xmit \
     tun_chr_close tun_flow_cleanup tun_detach_all tap_queue_resize gre_gro_receive geneve_xmit \
     vxlan_vnifilter_dump nf_tables_newset nft_set_elem_expr_alloc nf_hook_entries_grow \
     nf_conntrack_hash_check_insert nf_nat_cleanup_conntrack ctnetlink_dump_table \
     ip_set_ext_destroy bitmap_ip_add bitmap_ip_destroy bitmap_ip_ext_cleanup \
     bitmap_port_ext_cleanup bitmap_port_add hash_ipport_create list_set_uadt ebt_do_table \
     xt_compat_target_offset idletimer_tg_create ip_vs_conn_put qdisc_create_dflt qdisc_put \
     taprio_dequeue_soft hfsc_dequeue fq_codel_enqueue htb_dequeue sfq_dequeue \
     tcindex_set_parms u32_destroy_key fl_dump_key tcf_action_destroy mini_qdisc_pair_swap \
     netem_dequeue gred_init cake_hash ila_xlat_nl_cmd_add_mapping seg6_hmac_init_algo \
     mptcp_close_wake_up mptcp_stream_connect mptcp_pm_del_add_timer subflow_data_ready \
     inet_diag_dump_icsk sock_diag_destroy unix_stream_read_generic unix_gc \
     vsock_stream_connect virtio_transport_recv_pkt kcm_tx_work strp_data_ready can_rcv_filter \
     bcm_tx_setup j1939_session_get_by_addr j1939_xtp_rx_dat isotp_sendmsg \
     batadv_iv_ogm_schedule_buff batadv_nc_worker hsr_forward_skb hsr_dev_finalize \
     hsr_addr_is_self phonet_device_notify qrtr_node_lookup caif_device_notify cfserl_create \
     lapb_establish_data_link nfc_alloc_send_skb nci_close_device nci_rx_work llcp_sock_getname \
     nfc_llcp_local_put rfkill_unregister ieee802154_llsec_parse_key_id lowpan_control_packet \
     wg_packet_decrypt_worker ppp_register_net_channel slip_open slhc_uncompress hdlc_rcv",
    // Radio.
    "ieee80211_scan_rx ieee80211_rx_list ieee80211_tx_h_select_key ieee80211_start_next_roc \
     ieee80211_link_info_change_notify __ieee80211_scan_completed cfg80211_ch_switch_notify \
     cfg80211_scan_done cfg80211_bss_update reg_process_self_managed_hint nl80211_dump_wiphy \
     rate_control_rate_init mac80211_hwsim_tx_frame sta_info_insert_rcu minstrel_ht_update_caps \
     ath9k_wmi_event_tasklet ath9k_htc_rx_msg ath6kl_bmi_get_target_info mwifiex_unregister_dev \
     rsi_rx_done_handler zd_mac_clear rt2x00lib_remove_dev carl9170_usb_submit_cmd_urb \
     hci_conn_del hci_cmd_work hci_get_dev_info hci_sock_bind hci_uart_tty_close \
     hci_unregister_dev hci_send_acl l2cap_chan_put l2cap_sock_teardown_cb \
     l2cap_unregister_user sco_sock_timeout sco_conn_del rfcomm_sk_state_change \
     bt_accept_unlink mgmt_pending_remove msft_do_close set_powered_sync",
    // File systems, blocks, memory.
    "ext4_find_extent ext4_writepages ext4_search_dir ext4_xattr_set_entry \
     ext4_mb_mark_diskspace_used ext4_es_cache_extent jbd2_journal_commit_transaction \
     do_journal_end reiserfs_update_sd search_by_key btrfs_search_slot btrfs_tree_lock_nested \
     btrfs_alloc_dummy_sum set_extent_bit __set_extent_bit clear_extent_bit __clear_extent_bit \
     set_state_bits clear_state_bit test_range_bit find_first_extent_bit \
     btrfs_lookup_csums_bitmap write_all_supers close_ctree f2fs_invalidate_blocks \
     f2fs_test_bit update_sit_entry f2fs_evict_inode xfs_btree_lookup_get_block xlog_pack_data \
     xfs_trans_read_buf_map gfs2_setbit gfs2_glock_put gfs2_rgrp_dump gfs2_evict_inode \
     ocfs2_claim_suballoc_bits ocfs2_reserve_suballoc_bits ocfs2_set_new_buffer_uptodate \
     jfs_truncate_nolock dbAllocBits dbFindLeaf diNewExt txEnd lmLogSync hfs_bnode_read \
     hfs_find_init hfs_strcmp \
     hfsplus_strcasecmp hfsplus_block_allocate hfsplus_bnode_dump ntfs_read_inode_mount \
     ntfs_attr_find mi_enum_attr ni_write_inode run_unpack wnd_init exfat_set_entry \
     exfat_clear_bitmap exfat_test_bitmap fat_mirror_bhs fat12_ent_put udf_bitmap_new_block \
     udf_setsize udf_close_lvid nilfs_segctor_do_construct nilfs_set_link \
     nilfs_palloc_commit_alloc_entry erofs_readdir squashfs_read_inode sysv_new_inode \
     minix_set_inode bfs_find_entry ufs_get_locked_folio befs_btree_find qnx4_fill_super \
     isofs_read_inode zonefs_fill_super cramfs_read_folio debugfs_remove \
     simple_recursive_removal kernfs_next_descendant_post kernfs_remove_by_name_ns \
     sysfs_unmerge_group proc_sys_compare proc_evict_inode fuse_dev_do_read fuse_get_req \
     fuse_abort_conn ovl_copy_up_flags ovl_encode_real_fh nfsd_nl_listener_set_doit \
     nfs_start_io_direct p9_client_rpc p9_fd_poll v9fs_evict_inode ceph_parse_mount_param \
     cifs_put_tcp_session afs_put_call cachefiles_daemon_poll netfs_writepages \
     fscrypt_fname_siphash fscrypt_encrypt_pagecache_blocks fsnotify_put_mark \
     inotify_handle_inode_event fanotify_handle_event eventpoll_release_file ep_poll_callback \
     ep_loop_check_proc timerfd_release signalfd_cleanup aio_poll_complete_work exit_aio \
     io_ring_exit_work io_wq_put_and_exit io_poll_remove_entries __io_queue_proc \
     io_queue_worker_create io_uring_cancel_generic io_sq_thread_park io_submit_sqes \
     io_rsrc_node_ref_zero iov_iter_revert iov_iter_advance pipe_write vfs_tmpfile \
     vfs_getxattr_alloc path_openat do_filp_open link_path_walk lookup_fast d_lookup \
     d_splice_alias d_walk __d_move shrink_dentry_list iput evict generic_shutdown_super \
     deactivate_locked_super grab_super iterate_bdevs get_tree_bdev umount_tree lock_mount \
     clone_mnt mnt_want_write locks_remove_posix posix_lock_inode fcntl_setlk \
     fasync_remove_entry blkdev_put bdev_open blk_mq_free_request blk_mq_sched_free_rqs \
     blk_flush_plug_list bio_copy_user_iov bio_iov_iter_get_pages submit_bh_wbc \
     submit_bio_checks loop_control_ioctl lo_rw_aio loop_set_status nbd_ioctl nbd_genl_connect \
     null_add_dev floppy_queue_rq redo_fd_request sg_build_indirect sg_common_write scsi_ioctl \
     iscsi_conn_teardown md_import_device dm_table_create get_page_from_freelist \
     __free_frozen_pages rmqueue_bulk pcpu_alloc pcpu_alloc_noprof alloc_contig_range \
     __vma_adjust vma_merge vma_interval_tree_remove unmap_page_range zap_pte_range \
     copy_page_range do_wp_page __wp_page_copy_user do_anonymous_page do_swap_page \
     filemap_fault filemap_read filemap_get_entry shmem_fault shmem_getpage_gfp \
     hugetlb_reserve_pages __split_huge_page khugepaged_scan_file collapse_file mlock_fixup \
     page_vma_mapped_walk rmap_walk_file try_to_unmap_one folio_memcg folio_add_lru_vma \
     move_pages_pte userfaultfd_release handle_userfault mremap_to move_page_tables \
     do_user_addr_fault exc_page_fault zswap_store lru_add_fn mem_cgroup_css_alloc \
     memcg_rstat_updated obj_cgroup_charge quarantine_put",
    // The core, BPF, security, ciphers.
    "wake_up_new_task try_to_wake_up ttwu_queue_wakelist schedule_tail finish_task_switch \
     dequeue_entities set_next_entity __queue_map_get stack_map_get_build_id_offset \
     bpf_prog_kallsyms_del bpf_map_put bpf_check do_check_common check_helper_call \
     __mark_chain_precision array_map_alloc_check \
     bpf_ringbuf_reserve bpf_ktime_get_coarse_ns bpf_test_run_xdp_live bpf_link_settle \
     bpf_tcp_close dev_map_hash_delete_elem cpu_map_kthread_run __bpf_prog_put_noref \
     trie_get_next_key ringbuf_map_alloc perf_mmap_close perf_pending_task perf_tp_event \
     rb_alloc_aux rb_free_aux rb_reserve_next_event ring_buffer_wait tracing_map_insert \
     trace_event_get_offsets_kmem ftrace_startup uprobe_mmap kprobe_register posix_timer_add posix_clock_release ptp_clock_release \
     folio_referenced_one page_referenced_one \
     posix_cpu_timer_del alarm_timer_nsleep hrtimer_active hrtimer_forward \
     hrtimer_start_range_ns enqueue_timer detach_if_pending __internal_add_timer timerqueue_add \
     clockevents_program_event tick_nohz_restart futex_wait_requeue_pi exit_pi_state_list \
     free_pi_state robust_list_fetch rcu_segcblist_enqueue process_srcu srcu_invoke_callbacks \
     synchronize_srcu synchronize_rcu kthread_should_park kthread_worker_fn flush_workqueue \
     __flush_workqueue wq_worker_comm check_flush_dependency pwq_dec_nr_in_flight \
     apply_wqattrs_commit irq_work_run_list generic_exec_single on_each_cpu_cond_mask \
     console_unlock console_trylock_spinning vt_console_print vcs_write sysrq_handle_showstate \
     reboot_pid_ns put_pid free_pid zap_pid_ns_processes copy_process release_task exit_mm \
     do_coredump get_signal ptrace_stop seccomp_set_mode_filter prepare_creds put_cred_rcu \
     commit_creds_audit inc_rlimit_ucounts put_ucounts dec_ucount cgroup_rstat_flush \
     css_task_iter_advance cgroup_procs_write cpuset_write_resmask kernfs_fop_write_iter \
     key_put keyring_clear key_garbage_collector keyctl_pkey_verify big_key_destroy \
     selinux_socket_sendmsg selinux_inode_free_security smk_set_cipso smack_privileged \
     tomoyo_check_acl tomoyo_supervisor aa_getprocattr apparmor_file_alloc_security \
     ima_match_policy integrity_inode_get audit_log_start string_to_context_struct \
     sidtab_search_core crypto_aead_setkey crypto_destroy_tfm crypto_ahash_setkey alg_bind \
     hash_sendmsg af_alg_free_sg skcipher_recvmsg pcrypt_aead_encrypt padata_do_parallel \
     cryptd_queue_worker scatterwalk_copychunks gcm_hash_assoc_remain_continue \
     asymmetric_key_generate_id public_key_verify_signature radix_tree_next_chunk \
     radix_tree_node_alloc idr_for_each xa_erase assoc_array_insert rhashtable_walk_start_check \
     rhashtable_insert_rehash rht_deferred_worker refill_obj_stock deactivate_slab \
     qlist_free_all lookup_object __unwind_start unwind_next_frame stack_access_ok \
     __local_bh_enable_ip error_entry exc_debug_kernel remove_wait_queue add_wait_queue \
     lock_is_held_type lookup_one_qstr_excl",
    // Virtual machines and drivers.
    "kvm_mmu_page_fault kvm_tdp_page_fault kvm_handle_page_fault handle_exception_nmi \
     handle_ept_misconfig vmx_handle_exit kvm_arch_vcpu_ioctl_run kvm_vcpu_write_guest_page \
     kvm_read_guest_offset_cached kvm_ioapic_scan_entry irqfd_shutdown kvm_xen_evtchn_send \
     kvm_steal_time_set_preempted kvm_mmu_notifier_invalidate_range_start nested_vmx_vmexit \
     svm_vcpu_enter_exit vcpu_load vhost_work_queue vhost_dev_cleanup \
     vhost_vsock_handle_tx_kick vhost_transport_release virtqueue_add virtio_vsock_probe \
     handle_ring_buffer vmci_host_poll binder_alloc_deferred_release \
     binder_enqueue_work_ilocked binder_transaction ion_ioctl ashmem_shrink_scan tty_open \
     tty_buffer_flush tty_set_termios n_tty_receive_buf_common gsm_cleanup_mux gsmld_attach_gsm \
     vt_do_kdgkbent con_insert_unipair do_con_write fbcon_cursor fbcon_set_font fb_set_var \
     bit_putcs soft_cursor sys_imageblit vga16fb_imageblit drm_gem_object_release \
     drm_mode_setcrtc drm_atomic_helper_wait_for_vblanks vkms_vblank_simulate \
     drm_syncobj_array_find drm_prime_destroy_file_private vgem_gem_dumb_create udmabuf_create \
     dma_fence_array_create input_inject_event input_unregister_device input_ff_create \
     evdev_pass_values uinput_destroy_device mousedev_open_device hid_submit_ctrl \
     usbhid_raw_request hiddev_disconnect hidraw_release uhid_char_write \
     wacom_parse_and_register picolcd_send_and_wait i2c_transfer i2c_smbus_xfer gpiochip_remove \
     cdev_get cdev_put chrdev_open misc_open device_find_child device_private_init \
     device_shutdown really_probe driver_probe_device class_dev_iter_next devtmpfs_submit_req \
     platform_get_drvdata dev_uevent dev_attr_show fw_create_instance firmware_fallback_sysfs \
     request_firmware_work_func rtc_read_alarm mon_bin_read usb_get_bos_descriptor \
     usb_hub_wq_release hub_event hub_port_init usb_disconnect usb_disable_device \
     usb_set_configuration usb_deregister_dev usb_hcd_giveback_urb usb_stor_msg_common \
     usbtmc_open usbfs_start_wait_urb proc_do_submiturb usbdev_open wdm_release iowarrior_write \
     chaoskey_release ld_usb_release yurex_write legousbtower_read idmouse_open adu_disconnect \
     dummy_timer dummy_hub_control raw_ioctl_ep_write gadget_dev_desc_UDC_store ffs_data_put \
     printer_ioctl rndis_wlan_bind hso_free_interface lan78xx_probe asix_mdio_read \
     smsc75xx_read_reg mcs7830_bind pegasus_set_multicast rtl8150_probe ax88179_led_setting \
     cdc_ncm_tx_fixup qmi_wwan_probe line6_midibuf_read snd_usb_mixer_interrupt \
     snd_pcm_period_elapsed snd_pcm_oss_sync snd_pcm_format_set_silence snd_pcm_hw_param_first \
     snd_seq_deliver_single_event snd_seq_timer_interrupt snd_timer_open snd_timer_close_locked \
     snd_timer_user_read snd_rawmidi_kernel_write1 snd_ctl_elem_add_user snd_hwdep_release \
     snd_info_free_entry loopback_active_get aloop_prepare v4l2_ioctl v4l2_release \
     video_usercopy video_unregister_device vb2_core_reqbufs vidtv_mux_stop_thread \
     vivid_stop_generating_vid_cap dvb_dmxdev_release dvb_usb_device_exit dvb_frontend_open \
     em28xx_close_extension cx231xx_dev_init hdpvr_probe technisat_usb2_get_ir uvc_probe \
     uvc_ctrl_get_rel_cur ttusb_dec_exit_dvb pvr2_send_request_ex imon_disconnect mceusb_probe \
     lirc_dev_fop_close cec_transmit_msg media_request_alloc vidioc_querycap stk1160_probe \
     gspca_dev_probe sensor_owner_probe comedi_do_insn comedi_unlocked_ioctl ucma_listen \
     cma_cancel_operation rdma_resolve_addr ib_uverbs_ioctl ib_device_set_netdev siw_query_port \
     rxe_net_add nvme_fabrics_parse md_open rio_mport_open acpi_ex_resolve pci_user_read \
     xenbus_probe_thread watchdog_register bt_sock_poll",
];

/// Functions that no title names.
#[rustfmt::skip]
static SKIPPED: &[&str] = &[
    // Reports.
    "dump_stack dump_stack_lvl __dump_stack show_stack dump_backtrace show_regs dump_page \
     __dump_page panic vpanic check_panic_on_warn printk _printk vprintk_emit vprintk_store \
     __warn __warn_printk warn_slowpath_null warn_slowpath_fmt warn_slowpath_fmt_taint \
     warn_alloc warn_bogus_irq_restore report_bug fixup_bug handle_bug bug_handler print_report \
     print_address_description print_unlock_imbalance_bug print_usage_bug print_circular_bug \
     print_deadlock_bug print_bad_irq_dependency \
     save_stack_trace save_trace downgrade_write object_err print_trailer slab_err end_report get_taint print_tainted \
     stack_trace_save stack_trace_consume_entry arch_stack_walk stack_depot_save \
     __stack_depot_save fortify_panic __fortify_panic __fortify_report walk_stackframe \
     unwind_frame __stack_chk_fail btrfs_assertfail assertfail assfail va_format die oops_begin \
     oops_end",
    // Sanitizers.
    "kasan_report __kasan_report kasan_report_invalid_free kasan_check_read __kasan_check_write \
     kasan_check_range kasan_slab_free __kasan_slab_free ____kasan_slab_free kasan_kmalloc \
     kasan_save_stack kasan_set_track __asan_load8 __asan_report_load8_noabort __asan_memcpy \
     __asan_store4 __hwasan_load8_noabort kasan_tag_mismatch kmsan_report __msan_warning \
     __msan_warning_32 kmsan_internal_check_memory kmsan_check_memory kmsan_copy_to_user \
     kmsan_handle_urb __msan_memcpy kcsan_report kcsan_setup_watchpoint __tsan_read8 \
     kfence_report_error kfence_handle_page_fault __ubsan_handle_shift_out_of_bounds \
     ubsan_epilogue __sanitizer_cov_trace_pc __sanitizer_cov_trace_const_cmp4 \
     check_memory_region read_word_at_a_time",
    // Traps.
    "do_error_trap do_trap invalid_op do_invalid_op exc_invalid_op asm_exc_invalid_op \
     handle_invalid_op do_DataAbort do_mem_abort do_translation_fault el1_abort \
     el1h_64_sync_handler el1h_64_sync el1_dbg el1_brk64 brk_handler call_break_hook \
     do_debug_exception do_trap_break do_tag_check_fault __do_kernel_fault die_kernel_fault \
     do_bad_area program_check_exception notify_die do_undefinstr __x86_indirect_thunk_rax \
     __x86_indirect_thunk_array srso_alias_return_thunk \
     __x86_return_thunk srso_safe_ret __pi_strcmp __crypto_memneq",
    // Allocators.
    "kmalloc __kmalloc __kmalloc_noprof __kmalloc_cache_noprof kmalloc_trace kmalloc_large \
     ___kmalloc_large_node __kmalloc_node_track_caller_noprof kmalloc_order kmalloc_order_trace \
     kmalloc_reserve kmalloc_slab kvmalloc_node __kvmalloc_node_noprof kzalloc kcalloc \
     kmem_cache_alloc kmem_cache_alloc_node_noprof kmem_cache_free kmem_cache_destroy \
     kmem_cache_alloc_lru_noprof ____cache_alloc cache_alloc_refill cache_grow_begin \
     allocate_slab ___slab_alloc __slab_alloc new_slab slab_post_alloc_hook \
     slab_free_freelist_hook slab_kmem_cache_create __slab_free free_to_partial_list \
     put_cpu_partial __pcs_replace_full_main_free_to_pcs check_slab check_object \
     __check_object_size check_heap_object init_object setup_object alloc_debug_processing \
     free_debug_processing do_slab_free krealloc krealloc_noprof kvrealloc_node_align_noprof \
     vrealloc_node_align_noprof kfree kvfree kvfree_sensitive kfree_sensitive kzfree kfree_skb \
     kfree_skb_list_reason kfree_const vfree __vfree __vunmap vmalloc __vmalloc_node_range \
     __vmalloc_node_range_noprof vzalloc vmalloc_user vcalloc_noprof kvcalloc alloc_pages \
     __alloc_pages __alloc_pages_nodemask __alloc_pages_noprof alloc_pages_mpol \
     alloc_pages_current __alloc_frozen_pages_noprof alloc_frozen_pages_noprof \
     folio_alloc_noprof __folio_alloc_noprof vma_alloc_folio_noprof __get_free_pages \
     get_zeroed_page memdup_user memdup_user_nul vmemdup_user kmemdup_noprof kstrdup kstrndup \
     strndup_user kasprintf kvasprintf devm_kasprintf dma_zalloc_coherent pcpu_mem_zalloc \
     kmemleak_alloc create_object mempool_alloc",
    // Memory, strings, numbers.
    "memcpy __memcpy memcpy_erms memcpy_orig memset __memset memset_erms memmove memcmp \
     memchr_inv memscan bcmp strcpy strncpy strlcpy strscpy sized_strscpy strlen strnlen strcmp \
     strncmp strcasecmp strcat strncat strstr strnstr strchr strrchr strcspn strspn strsep \
     strim nla_strscpy nla_strcmp kstrtoull _kstrtoull kstrtouint simple_strtoul sscanf vsscanf \
     string string_nocheck pointer number put_dec_trunc8 vsnprintf snprintf scnprintf \
     vscnprintf sprintf hex_string hex_dump_to_buffer print_hex_dump widen_string symbol_string \
     ip6_addr_string uuid_string dentry_name format_decode copy_to_user _copy_to_user \
     copy_from_user _copy_from_user __copy_user_nocache copy_user_generic_unrolled \
     copy_user_enhanced_fast_string copy_user_short_string rep_movs_alternative \
     rep_stos_alternative raw_copy_from_user __arch_copy_from_user __arch_copy_to_user \
     __put_user_4 __get_user_8 __get_user_nocheck_1 strncpy_from_user strnlen_user clear_user \
     __clear_user usercopy_abort usercopy_warn _copy_from_iter copy_from_iter _copy_to_iter \
     copy_page_to_iter copy_page_from_iter_atomic crc16 crc32_le_base crc32c __crc32c_le \
     crc_t10dif_update xxh64_digest csum_partial __might_fault might_fault logic_inb logic_outb \
     ioread8 iowrite32 readl writel",
    // Atomics, bits, references.
    "atomic_dec_and_test atomic64_read atomic_long_try_cmpxchg_acquire atomic_fetch_add \
     _atomic_dec_and_lock _atomic_dec_and_lock_irqsave instrument_atomic_read set_bit clear_bit \
     test_bit test_and_set_bit __set_bit arch_set_bit arch_test_and_clear_bit refcount_inc \
     refcount_warn_saturate refcount_dec_and_lock refcount_sub_and_test_checked __refcount_add \
     kref_put kref_get ref_tracker_free ref_tracker_dir_exit __seqprop_assert __bitmap_weight \
     __bitmap_and bitmap_find_next_zero_area_off find_next_bit _find_first_zero_bit drop_nlink \
     set_nlink inc_nlink",
    // Lists and trees.
    "__list_add_valid __list_add_valid_or_report list_add_tail __list_del_entry_valid \
     __list_del_entry_valid_or_report list_del_init hlist_del_rcu list_move_tail \
     list_splice_init llist_add_batch plist_del klist_put klist_next klist_add_tail rb_erase \
     rb_insert_color rb_next rb_prev rb_first __rb_insert_augmented __rb_erase_color \
     rhashtable_lookup_fast xas_start xas_load xas_find xas_descend find_get_entries ida_free \
     ida_alloc_range",
    // Locks.
    "lockdep_init_map lockdep_init_map_type lockdep_rcu_suspicious lockdep_hardirqs_on_prepare \
     debug_lockdep_rcu_enabled __lock_acquire lock_acquire lock_release __lock_release \
     register_lock_class mark_lock mark_held_locks mark_usage reacquire_held_locks \
     check_noncircular check_prev_add check_irq_usage check_wait_context hlock_class \
     validate_chain _raw_spin_lock _raw_spin_lock_irqsave _raw_spin_trylock \
     _raw_spin_unlock_irqrestore do_raw_spin_lock do_raw_spin_unlock spin_bug spin_dump \
     queued_spin_lock_slowpath native_queued_spin_lock_slowpath __pv_queued_spin_lock_slowpath \
     queued_read_lock_slowpath queued_write_lock_slowpath _raw_read_lock_bh _raw_read_unlock \
     _raw_write_lock_bh _raw_write_unlock_bh rwlock_bug down_read down_read_trylock down_write \
     down_write_killable down_interruptible down up up_read up_write rwsem_down_write_slowpath \
     rwsem_down_read_failed __mutex_lock __mutex_lock_common mutex_lock_nested \
     mutex_lock_interruptible_nested mutex_trylock mutex_unlock __mutex_unlock_slowpath \
     ww_mutex_lock __ww_mutex_lock rt_mutex_lock rt_mutex_slowlock rt_spin_lock \
     task_blocks_on_rt_mutex owner_on_cpu osq_lock osq_unlock raw_spin_rq_lock_nested \
     raw_spin_rq_unlock __task_rq_lock task_rq_lock double_rq_lock percpu_down_write \
     percpu_up_read percpu_rwsem_wait trace_hardirqs_on trace_hardirqs_off \
     trace_hardirqs_off_caller trace_hardirqs_on_thunk",
    // Timers and work.
    "debug_object_init debug_object_assert_init debug_object_activate debug_object_free \
     debug_print_object debug_check_no_obj_freed __debug_check_no_obj_freed \
     debug_spin_lock_before debug_mutex_lock_common timer_is_static_object \
     work_is_static_object init_timer_key do_init_timer del_timer del_timer_sync \
     try_to_del_timer_sync __try_to_del_timer_sync timer_delete timer_delete_sync \
     __timer_delete_sync timer_shutdown_sync mod_timer __mod_timer mod_timer_pending add_timer \
     add_timer_on lock_timer_base sk_reset_timer sk_stop_timer sk_stop_timer_sync __init_work \
     flush_work __flush_work start_flush_work flush_delayed_work cancel_work_sync \
     __cancel_work_timer __cancel_work __cancel_work_sync cancel_delayed_work_sync \
     disable_work_sync disable_delayed_work_sync try_to_grab_pending work_grab_pending \
     drain_workqueue destroy_workqueue queue_work_on __queue_work queue_delayed_work_on \
     __queue_delayed_work mod_delayed_work_on insert_work insert_wq_barrier kthread_queue_work",
    // Sleeping and waking.
    "might_sleep ___might_sleep __might_sleep __might_resched __cond_resched preempt_schedule \
     preempt_schedule_common preempt_schedule_irq __wake_up __wake_up_common \
     __wake_up_common_lock __wake_up_sync_key finish_wait prepare_to_wait prepare_to_wait_event \
     prepare_to_wait_exclusive wait_for_completion wait_for_completion_timeout complete \
     complete_all swake_up_locked kthread_stop check_preemption_disabled debug_smp_processor_id \
     __this_cpu_preempt_check",
    // The driver core.
    "kobject_get kobject_put kobject_del __kobject_del kobject_add kobject_add_internal \
     kobject_init_and_add kobject_uevent_env kobject_cleanup add_uevent_var get_device_parent \
     device_add device_del device_unregister device_register device_destroy device_create \
     device_create_groups_vargs device_release device_initialize device_for_each_child \
     devres_release_all release_nodes put_device get_device devm_kmalloc devm_kfree \
     bus_remove_device driver_detach device_links_driver_cleanup device_release_driver_internal \
     __device_release_driver device_unbind_cleanup sysfs_remove_group sysfs_remove_file_ns \
     sysfs_remove_dir sysfs_create_file_ns sysfs_warn_dup device_remove_file device_create_file \
     hwrng_unregister misc_deregister cdev_del cdev_device_del platform_device_add \
     i2c_del_adapter __unregister_client tty_unregister_device _dev_info _dev_err dev_warn \
     dev_printk_emit dev_vprintk_emit __dev_printk netdev_err netdev_info netdev_printk \
     rollback_registered rollback_registered_many unregister_netdev unregister_netdevice_queue",
    // Transfers.
    "usb_submit_urb usb_hcd_submit_urb usb_kill_urb usb_kill_anchored_urbs usb_poison_urb \
     usb_start_wait_urb usb_control_msg usb_control_msg_send usb_bulk_msg usb_interrupt_msg \
     usb_internal_control_msg dummy_urb_enqueue",
    // Things handed over or walked through.
    "perf_trace_buf_alloc perf_trace_run_bpf_submit perf_trace_lock perf_trace_lock_acquire \
     find_lock_entries truncate_inode_pages truncate_inode_pages_range \
     truncate_inode_pages_final __phys_addr __phys_addr_symbol cleanup_srcu_struct \
     extract_user_to_sg extract_iter_to_sg folio_unlock unlock_page compound_head \
     _compound_head mark_buffer_dirty dput fast_dput skb_push skb_put skb_put_data skb_pull \
     __skb_pull skb_panic skb_over_panic skb_under_panic",
    // Rarer members of these families.
    "print_irqtrace_events print_lock_name unwind_backtrace __die die_kernel_fault no_context \
     do_general_protection general_protection do_double_fault do_divide_error divide_error \
     do_int3 int3 fault_in_kernel_space el1_da el1_sync do_sea el1_undef do_alignment_exception \
     pgm_check_handler monitor_event_exception illegal_op handle_exception do_bp handle_bp_int \
     do_ade handle_ade_int do_ri handle_ri handle_ri_int clear_bhb_loop kvrealloc_noprof \
     __cache_alloc __do_cache_alloc __create_object cache_free_debugcheck memzero_explicit \
     strlcat strnchr strpbrk strncasecmp _parse_integer_limit hex_number ip4_string ip6_string \
     ip6_compressed_string mac_address_string flags_string bitmap_list_string time_and_date \
     copy_user_handle_tail copy_user_fsrm_string copy_mc_to_kernel copy_folio_from_iter_atomic \
     crc4 crc7_be crc8 crc64_be crc_pcl crct10dif_update __raw_readb __raw_writeq readb readw \
     readq writeb writew writeq atomic_inc atomic_set atomic_or atomic_xor atomic_and \
     atomic_add_return atomic_sub_and_test atomic_xchg atomic_try_cmpxchg atomic64_add \
     atomic64_dec_return atomic64_inc atomic64_sub atomic64_xchg atomic_long_inc \
     atomic_long_add atomic_long_read change_bit __clear_bit _test_bit bitmap_set bitmap_clear \
     bitmap_zero bitmap_weight bitmap_allocate_region bitmap_parselist bitmap_print_to_pagebuf \
     find_first_bit find_next_zero_bit find_next_and_bit find_last_bit clear_nlink page_ref_add \
     __page_ref_mod list_replace list_cut_position llist_del_first llist_reverse_order \
     plist_add rb_last rb_next_postorder rb_replace_node rb_link_node rb_add rb_find \
     __rb_rotate_set_parents check_deadlock check_redundant check_path check_usage \
     check_chain_key check_lock_chain __bfs find_usage_backwards _raw_read_trylock \
     _raw_write_trylock down_timeout __down rwsem_mark_wake rt_spin_unlock percpu_down_read \
     rq_lock rq_unlock local_irq_enable trace_softirqs_on debug_spin_unlock queue_work \
     kthread_insert_work kthread_queue_delayed_work complete_with_flags device_create_file \
     i2c_unregister_device dev_info dev_notice dev_err dev_alert dev_crit dev_emerg \
     netdev_notice netdev_warn netdev_alert netdev_crit netdev_emerg trace_event_buffer_reserve \
     __dput_to_list __skb_push __skb_put",
];

fn words(table: &[&'static str]) -> impl Iterator<Item = &'static str> {
    table.iter().flat_map(|group| group.split_whitespace())
}

#[test]
fn real_functions_are_not_skipped() {
    let skipped: Vec<&str> = words(GUILTY).filter(|name| is_helper(name, &[])).collect();
    assert_eq!(skipped, Vec::<&str>::new());
    let dispatching: Vec<&str> = words(GUILTY).filter(|name| is_dispatcher(name)).collect();
    assert_eq!(dispatching, Vec::<&str>::new());
    assert!(words(GUILTY).count() > 700);
}

#[test]
fn helpers_are_skipped() {
    let named: Vec<&str> = words(SKIPPED).filter(|name| !is_helper(name, &[])).collect();
    assert_eq!(named, Vec::<&str>::new());
    assert!(words(SKIPPED).count() > 500);
}

#[test]
fn every_pattern_fits_something() {
    for pattern in HELPERS.iter().copied().flatten().chain(DISPATCHERS) {
        let name = pattern.trim_matches(['^', '$']).replace('*', "x");
        let operation = OPERATIONS.iter().any(|p| matches(p, &name));
        assert!(is_helper(&name, &[]) || is_dispatcher(&name) || operation, "{pattern}");
    }
}

#[test]
fn a_crash_has_helpers_of_its_own() {
    assert!(is_helper("foo_bar", &["^foo"]));
    assert!(!is_helper("foo_bar", &["^bar"]));
    // An operation is one unless the crash's own patterns say that it is none.
    assert!(!is_helper("synchronize_rcu", &[]));
    assert!(is_helper("synchronize_rcu", &["rcu"]));
}

#[test]
fn patterns() {
    for (pattern, name, fits) in [
        ("abc", "xabcx", true),
        ("^abc", "abcx", true),
        ("^abc", "xabc", false),
        ("abc$", "xabc", true),
        ("abc$", "abcx", false),
        ("^abc$", "abc", true),
        ("^abc$", "abcx", false),
        ("^a*c", "abbc", true),
        ("^a*c$", "abcx", false),
        ("a*c", "xaxcx", true),
    ] {
        assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
    }
}

#[test]
fn dispatchers() {
    for name in [
        "process_one_work",
        "process_scheduled_works",
        "kthread",
        "ret_from_fork_asm",
        "__do_softirq",
        "handle_softirqs",
        "call_timer_fn",
        "__hrtimer_run_queues",
        "tasklet_action_common",
        "smp_call_function_many_cond",
        "do_syscall_64",
        "do_syscall_32_irqs_on",
        "__do_fast_syscall_32",
        "tracesys_phase2",
        "el0_svc_common",
        "invoke_syscall",
        "ret_fast_syscall",
        "exit_to_usermode_loop",
        "__vfs_write",
        "do_vfs_ioctl",
        "__x64_sys_ioctl",
        "compat_SyS_ioctl",
        "__sys_connect_file",
        "SYSC_connect",
        "__x64_sys_socketpair",
        "sock_sendmsg_nosec",
        "__sock_sendmsg",
        "__sock_release",
        "sock_common_setsockopt",
        "rtnetlink_rcv_msg",
        "netlink_dump",
        "__netif_receive_skb_list_core",
        "do_mmap",
        "do_page_fault",
        "__fput",
        "task_work_run",
    ] {
        assert!(is_dispatcher(name), "{name}");
    }
    for name in [
        "rtc_timer_do_work",
        "worker_thread",
        "l2cap_sock_release",
        "ctnetlink_dump_table",
        "tipc_nl_compat_recv",
        "kvm_mmu_page_fault",
        "exc_page_fault",
        "syscall_exit_to_user_mode",
        "exit_to_user_mode_prepare",
        "kthread_worker_fn",
        "btrfs_get_tree",
        "netlink_sendmsg",
        "net_rx_action",
        "do_idle",
    ] {
        assert!(!is_dispatcher(name), "{name}");
    }
}
